"""What a request that cannot be met is answered: JSON for a program, a page for a person."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from scale_ray.config import describe_problem
from scale_ray.errors import UserError
from scale_ray.service.access import NotAllowed, TooMany, Unauthorised
from scale_ray.service.studies import Conflict, Forbidden, NoSuchStudy
from scale_ray.service.web import message_page


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
_UNMET = 422

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "10"}}
_NO_BODY = "the body is no JSON object: send one, with the header Content-Type: application/json"
_NO_PAGE = "no such page: / has the studies, /docs the API"


class Problem(BaseModel):
    """The answer to a request that cannot be met."""

    error: str = Field(description="what is wrong and what to do, one line for each problem")


# For the description of the API.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in (
        (401, "no token, or one that is not valid"),
        (403, "the token's scope is too small, or the study is somebody else's"),
        (404, "no such study"),
        (409, "the study is in a state in which that cannot be done, or its name is taken"),
        (_UNMET, "it cannot be run as it is"),
        (429, "too many requests"),
    )
}


def answer_errors(app: FastAPI) -> None:
    """Let an application answer every error of a user in one form."""
    app.add_exception_handler(UserError, _of_user)
    app.add_exception_handler(RequestValidationError, _of_form)
    app.add_exception_handler(HTTPException, _of_framework)


def refusal(error: UserError) -> Response:
    """The answer to a program whose request meets this error."""
    status = _status(error)
    return JSONResponse({"error": str(error)}, status, headers=_HEADERS.get(status))


def _status(error: UserError) -> int:
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), _UNMET)


async def _of_user(request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    status = _status(error)
    return _answer(request, str(error), status, _HEADERS.get(status))


async def _of_form(request: Request, error: Exception) -> Response:
    """A body or parameter that is not of its form, in the words that the command line has for it."""
    assert isinstance(error, RequestValidationError)
    body = getattr(request.scope.get("route"), "body_field", None)
    kind = body.field_info.annotation if body else None
    if any(len(problem["loc"]) <= 1 or problem["type"] == "json_invalid" for problem in error.errors()):
        return _answer(request, _NO_BODY, _UNMET)
    # The first part of a place is where the value came from: body, path, query.
    lines = [describe_problem({**problem, "loc": problem["loc"][1:]}, kind) for problem in error.errors()]
    return _answer(request, "\n".join(lines), _UNMET)


async def _of_framework(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: a path or method that there is not."""
    assert isinstance(error, HTTPException)
    text = _NO_PAGE if error.status_code == 404 else str(error.detail)
    return _answer(request, text, error.status_code, error.headers)


def _answer(request: Request, text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(message_page(text), status, headers=headers)
    return JSONResponse({"error": text}, status, headers=headers)
