"""The service over HTTP: the API. `web` has its pages, `guard` what every request has to pass."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from scale_ray import __version__
from scale_ray.report.page.trials import curve_of
from scale_ray.report.read.curves import curve_of_record
from scale_ray.service.access import Access, TooMany
from scale_ray.service.answers import StudyAnswer
from scale_ray.service.asking import Reader, Running, Submitter, is_known
from scale_ray.service.database import StudyRow
from scale_ray.service.feed import told
from scale_ray.service.guard import Guard
from scale_ray.service.metrics import Counted, Requests, metrics
from scale_ray.service.planner import PlanAnswer
from scale_ray.service.refusals import REFUSALS, answer_errors
from scale_ray.service.service import Service
from scale_ray.service.settings import Scope
from scale_ray.service.studies import NoSuchStudy
from scale_ray.service.submission import Submission
from scale_ray.service.web import Pages, web

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


class Weights(BaseModel):
    """What `PATCH` changes."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(None, ge=-100, le=100)
    share: float | None = Field(None, gt=0, le=1000)


class Extension(BaseModel):
    """Values to add to axes."""

    model_config = ConfigDict(extra="forbid")

    axes: dict[str, list[Any]]


# It describes the token; `who_asks` reads it.
_described = HTTPBearer(auto_error=False, description="from `scale-ray token create`")

api = APIRouter(prefix="/api", responses=REFUSALS, dependencies=[Depends(_described)])


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


@api.get("/studies/{name}/cells/{cell}/curve", summary="The curve of a cell that is done, in percent by step")
def curve(name: str, cell: str, who: Reader, service: Running) -> dict[str, Any]:
    watch = service.watch_of(service.studies.find(name))
    try:
        record = watch.record(name, cell)
    except KeyError:
        hint = f"GET /api/studies/{name}/cells lists them"
        raise NoSuchStudy(f"no cell {cell[:100]!r} in study {name!r}: {hint}") from None
    return {} if record is None else curve_of(cell, curve_of_record(record)) or {}


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
    answer_errors(app)
    app.add_middleware(Guard, settings=service.settings)
    app.add_middleware(Counted, requests=app.state.requests)
    return app
