"""The service over HTTP: the API, its errors, and what every request has to pass."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from scale_ray import __version__
from scale_ray.config import describe_problem
from scale_ray.errors import UserError
from scale_ray.service.access import Access, NotAllowed, TooMany, Unauthorised, check_host, check_origin
from scale_ray.service.answers import StudyAnswer
from scale_ray.service.asking import Reader, Running, Submitter, is_known
from scale_ray.service.database import StudyRow
from scale_ray.service.feed import told
from scale_ray.service.metrics import Counted, Requests, metrics
from scale_ray.service.planner import PlanAnswer
from scale_ray.service.service import Service
from scale_ray.service.settings import Scope, ServiceSettings
from scale_ray.service.studies import Conflict, Forbidden, NoSuchStudy
from scale_ray.service.submission import Submission
from scale_ray.service.web import Pages, message_page, web

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_BODY_SECONDS = 30.0  # for a client to send its whole request
_HEARTBEAT_SECONDS = 15.0  # between two events, at most: a proxy ends a connection that says nothing


class Submitted(BaseModel):
    """The answer to a submission."""

    plan: PlanAnswer
    new: bool = Field(False, description="whether this request has brought the study, or its new values, here")
    study: StudyAnswer | None = Field(None, description="none for a dry run")


class Me(BaseModel):
    """Whom a request comes from."""

    name: str
    scope: Scope


class Problem(BaseModel):
    """The answer to a request that cannot be met."""

    error: str = Field(description="what is wrong and what to do, one line for each problem")


class Weights(BaseModel):
    """What `PATCH` changes."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(None, ge=-100, le=100)
    share: float | None = Field(None, gt=0, le=1000)


class Extension(BaseModel):
    """Values to add to axes."""

    model_config = ConfigDict(extra="forbid")

    axes: dict[str, list[Any]]


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in (
        (401, "no token, or one that is not valid"),
        (403, "the token's scope is too small, or the study is somebody else's"),
        (404, "no such study"),
        (409, "the study is in a state in which that cannot be done, or its name is taken"),
        (422, "it cannot be run as it is"),
        (429, "too many requests"),
    )
}
# It describes the token; `who_asks` reads it.
_described = HTTPBearer(auto_error=False, description="from `scale-ray token create`")

api = APIRouter(prefix="/api", responses=_REFUSALS, dependencies=[Depends(_described)])


@api.post("/studies", summary="Submit a study, or with dry_run=1 ask for its plan")
def submit(submission: Submission, who: Submitter, service: Running, dry_run: bool = False) -> Submitted:
    if dry_run:
        return Submitted(plan=service.studies.plan(submission))
    row, plan, new = service.studies.submit(submission, who)
    return Submitted(plan=plan, new=new, study=StudyAnswer.of(row))


@api.get("/me", summary="Who asks, by the token")
def me(who: Reader) -> Me:
    return Me(name=who.name, scope=who.scope)


@api.get("/studies", summary="All studies, the newest first")
def list_studies(who: Reader, service: Running, owner: str | None = None) -> list[StudyAnswer]:
    return [StudyAnswer.of(row) for row in service.database.studies(owner=owner)]


@api.get("/studies/{name}", summary="One study")
def show(name: str, who: Reader, service: Running) -> StudyAnswer:
    return StudyAnswer.of(service.studies.find(name))


@api.patch("/studies/{name}", summary="Change its priority or share of places")
def reweigh(name: str, weights: Weights, who: Submitter, service: Running) -> StudyAnswer:
    row = service.studies.reweigh(name, who, priority=weights.priority, share=weights.share)
    return StudyAnswer.of(row)


@api.post("/studies/{name}/pause", summary="End its job once every training has saved its state")
def pause(name: str, who: Submitter, service: Running) -> StudyAnswer:
    return StudyAnswer.of(service.studies.pause(name, who))


@api.post("/studies/{name}/cancel", summary="End it; what is done stays in the store")
def cancel(name: str, who: Submitter, service: Running) -> StudyAnswer:
    return StudyAnswer.of(service.studies.cancel(name, who))


@api.post("/studies/{name}/resume", summary="Go on with a study that was paused, cancelled or has failed")
def resume(name: str, who: Submitter, service: Running) -> StudyAnswer:
    return StudyAnswer.of(service.studies.resume(name, who))


@api.post("/studies/{name}/retry", summary="Train its failed cells again")
def retry(name: str, who: Submitter, service: Running) -> StudyAnswer:
    return StudyAnswer.of(service.studies.retry(name, who))


@api.post("/studies/{name}/extend", summary="Add values to its axes, such as seeds")
def extend(name: str, extension: Extension, who: Submitter, service: Running) -> Submitted:
    row, plan = service.studies.extend(name, who, extension.axes)
    return Submitted(plan=plan, new=True, study=StudyAnswer.of(row))


@api.get("/studies/{name}/cells", summary="The state of each of its cells, by id")
def cells(name: str, who: Reader, service: Running) -> dict[str, dict[str, Any]]:
    row = service.studies.find(name)
    found = service.watch_of(row).cells(row.name)
    return {cell: told(state) for cell, state in found.items()}


@api.get("/studies/{name}/log", summary="What its job has printed", response_class=PlainTextResponse)
def log(name: str, who: Reader, service: Running, lines: int = 200) -> str:
    row = service.studies.find(name)
    job = row.job or (f"{row.name}-{row.attempt}" if row.attempt else "")
    text = service.jobs.log(job) if job else ""
    return "\n".join(text.splitlines()[-max(1, min(lines, 10_000)) :])


def place_to_listen(name: str, who: Reader, service: Running) -> StudyRow:
    """The study whose changes a page may be told."""
    if service.listeners >= service.settings.limits.events:
        raise TooMany("too many pages listen to events: close some, or look again later")
    row = service.studies.find(name)
    service.watch_of(row)
    return row


@api.get("/studies/{name}/events", response_class=EventSourceResponse, summary="Changes, as server-sent events")
async def events(
    row: Annotated[StudyRow, Depends(place_to_listen)], request: Request, service: Running
) -> AsyncIterator[ServerSentEvent]:
    feed, version = service.feed(row), 0
    with service.listen(row.store) as listener:
        while await asyncio.to_thread(is_known, request):  # its token may be revoked meanwhile
            await asyncio.to_thread(feed.refresh)
            version, changes = feed.since(version)
            for change in changes:
                yield ServerSentEvent(raw_data=change, event="change")
            while not await listener.wait(_HEARTBEAT_SECONDS):
                yield ServerSentEvent(comment="still here")


open_routes = APIRouter()


@open_routes.get("/healthz", summary="Whether the service, its database and the cluster answer")
def healthz(service: Running, response: Response) -> dict[str, Any]:
    database, cluster = service.database.answers(), not service.reconciler.problem
    if not database:
        response.status_code = 503
    return {"database": database, "cluster": cluster, "rounds": service.rounds, "version": __version__}


@open_routes.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
def prometheus(request: Request, who: Reader, service: Running) -> str:
    return metrics(service) + request.app.state.requests.text()


def app_of(service: Service) -> FastAPI:
    """The application. The service starts and stops with it."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(title="scale-ray", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.access = Access(service.settings, service.database)
    app.state.pages = Pages()
    app.state.requests = Requests()
    app.include_router(api)
    app.include_router(web)
    app.include_router(open_routes)
    app.add_exception_handler(UserError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_problems)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_middleware(Guard, settings=service.settings)
    app.add_middleware(Counted, requests=app.state.requests)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    if "text/html" in request.headers.get("accept", ""):  # a person looks at it
        return HTMLResponse(message_page(str(error)), _status(error))
    return _refusal(error)


async def _answer_problems(request: Request, error: Exception) -> Response:
    """A body or parameter that is not of its form, in the words that the command line has for it."""
    assert isinstance(error, RequestValidationError)
    body = getattr(request.scope.get("route"), "body_field", None)
    kind = body.field_info.annotation if body else None
    if any(len(problem["loc"]) <= 1 or problem["type"] == "json_invalid" for problem in error.errors()):
        text = "the body is no JSON object: send one, with the header Content-Type: application/json"
        return await _answer_error(request, UserError(text))
    lines = [describe_problem({**problem, "loc": problem["loc"][1:]}, kind) for problem in error.errors()]
    return await _answer_error(request, UserError("\n".join(lines)))


async def _answer_http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: a path or method that there is not."""
    assert isinstance(error, HTTPException)
    text = {404: "no such page: / has the studies, /docs the API"}.get(error.status_code, str(error.detail))
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(message_page(text), error.status_code)
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)


def _refusal(error: Exception) -> Response:
    status = _status(error)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "10"}}.get(status, {})
    return JSONResponse({"error": str(error)}, status, headers=headers)


def _status(error: Exception) -> int:
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)


class Guard:
    """What every request passes first: host, origin, size and speed of its body; and headers of every answer."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings):
        self._app, self._settings = app, settings

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
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
            await _refusal(error)(scope, receive, answer)
            return
        except TimeoutError:
            await _refusal(TooSlow(f"no whole request within {_BODY_SECONDS:g} s"))(scope, receive, answer)
            return
        await self._app(scope, _replayed(body, receive), answer)


class TooSlow(UserError):
    """A client does not send its whole request in time."""


class TooLarge(UserError):
    """The body of a request is larger than the service takes."""


# Error -> HTTP status. Any other UserError is a request that cannot be met as it is.
_STATUS: dict[type[UserError], int] = {
    Unauthorised: 401,
    NotAllowed: 403,
    Forbidden: 403,
    NoSuchStudy: 404,
    TooSlow: 408,
    Conflict: 409,
    TooLarge: 413,
    TooMany: 429,
}


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
