"""What every request has to pass first, and the headers of every answer."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scale_ray.errors import UserError
from scale_ray.service.access import check_host, check_origin
from scale_ray.service.refusals import TooLarge, TooSlow, refusal
from scale_ray.service.settings import ServiceSettings

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_BODY_SECONDS = 30.0  # for a client to send its whole request


class Guard:
    """What every request passes first: host, origin, size and speed of its body; and headers of every answer."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings):
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message.get("headers", ())}
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                missing = [(name, value) for name, value in own if name not in there]
                message = {**message, "headers": [*message.get("headers", ()), *missing]}
            await send(message)

        try:
            check_host(self._settings, headers.get("host", ""))
            check_origin(scope["method"], headers)
            body = await asyncio.wait_for(_body(receive, self._settings.limits.body_bytes), _BODY_SECONDS)
        except UserError as error:
            await refusal(error)(scope, receive, answer)
            return
        except TimeoutError:
            await refusal(TooSlow(f"no whole request within {_BODY_SECONDS:g} s"))(scope, receive, answer)
            return
        await self._app(scope, _replayed(body, receive), answer)


async def _body(receive: Receive, most: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise TooLarge(f"the request has more than {most:,} bytes: send a smaller study")
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that gives the body that was read already, and then whatever comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
