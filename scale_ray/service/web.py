"""The pages of the service: the studies, one while it runs, its report, signing in, the description of the API."""

import base64
import hashlib
import json
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import jinja2
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from scale_ray.report.build import Asked, write_report
from scale_ray.report.page.page import Live, page
from scale_ray.report.page.template import part, render_page
from scale_ray.report.read.completeness import check
from scale_ray.report.read.load import cells_of
from scale_ray.report.tables.forms import grids
from scale_ray.service.access import COOKIE, Unauthorised
from scale_ray.service.answers import StudyAnswer
from scale_ray.service.asking import Reader, Running, client_of, who_asks
from scale_ray.service.database import StudyRow
from scale_ray.service.service import Service

_MORE = jinja2.PackageLoader("scale_ray.service", "pages")
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "live.js": "text/javascript"}
_OWN = {"index.js": "text/javascript"}
_MOMENT = "%Y-%m-%d %H:%M"

EXAMPLE = {
    "study": {
        "name": "first",
        "base": {"data.benchmark": "digits"},
        "steps": 200,
        "axes": {"seed": [0, 1, 2], "pair": ["mnist:mnistm"], "losses": ["ce", "ce+ssl", "ce+ssl+dist+reg"]},
    },
    "store": "default",
    "priority": 0,
}

# A page is not made anew before as many times its own time have passed: viewers of a large study would keep the service
# busy with pages alone. Its script gets every change by itself.
_PAUSES = 3.0

web = APIRouter(include_in_schema=False)


class _Made(NamedTuple):
    version: int  # of the watch
    text: str
    at: float
    seconds: float  # that it took


class Pages:
    """Pages of studies, each made once for all who look at it."""

    def __init__(self) -> None:
        self._lock, self._report_lock = threading.Lock(), threading.Lock()  # a report takes longer than a page
        self._live: dict[str, _Made] = {}
        self._reports: dict[str, tuple[int, dict[str, str]]] = {}

    def live(self, service: Service, row: StudyRow) -> str:
        """The page of a study: its tables as they are now, or were some seconds ago, where making them takes long."""
        with self._lock:
            version, made = service.watch_of(row).version, self._live.get(row.name)
            if made is None or (made.version != version and time.monotonic() - made.at > _PAUSES * made.seconds):
                began = time.monotonic()
                text = _live_page(service, row)
                made = self._live[row.name] = _Made(version, text, time.monotonic(), time.monotonic() - began)
            return made.text

    def report(self, service: Service, row: StudyRow) -> dict[str, str]:
        """The report of a study, with effects and figures: `report.html`, and `records.csv` with all columns.

        Raises:
            ReportError: there is nothing to report yet.
        """
        watch = service.watch_of(row)
        with self._report_lock:
            if self._reports.get(row.name, (-1, {}))[0] != watch.version:
                with tempfile.TemporaryDirectory() as folder:
                    write_report(watch.store.location, Path(folder), Asked(study=row.name))
                    texts = {name: (Path(folder) / name).read_text() for name in ("report.html", "records.csv")}
                    self._reports[row.name] = (watch.version, texts)
            return self._reports[row.name][1]


def _live_page(service: Service, row: StudyRow) -> str:
    watch = service.watch_of(row)
    with watch.lock:
        loaded = cells_of(watch.rows, row.name)
    cells, remarks = check(loaded, ("code",))
    return page(cells, grids(cells, remarks=remarks), {}, live=Live(row.name, row.owner))


def message_page(text: str) -> str:
    """A page that says why there is no other."""
    return _page("message.html", text=text)


def _page(name: str, **values: Any) -> str:
    return render_page(name, more=_MORE, **values)


@web.get("/", response_class=HTMLResponse)
def index(request: Request, service: Running) -> Response:
    try:
        who = who_asks(request)
    except Unauthorised:
        return RedirectResponse("/login", 303)
    studies = [
        {**StudyAnswer.of(row).model_dump(), "created": datetime.fromtimestamp(row.created, UTC).strftime(_MOMENT)}
        for row in service.database.studies()
    ]
    text = _page(
        "index.html",
        who=who.name,
        can_sign_out=COOKIE in request.cookies,
        may_submit=who.may("submit"),
        studies=studies,
        stores=list(service.settings.stores),
        roots=list(service.settings.roots),
        example=json.dumps(EXAMPLE, indent=2),
        cluster=service.cluster_text(),
    )
    return HTMLResponse(text)


@web.get("/studies/{name}", response_class=HTMLResponse)
def study(name: str, request: Request, service: Running) -> Response:
    try:
        who_asks(request)
    except Unauthorised:
        return RedirectResponse("/login", 303)
    row = service.studies.find(name)
    watch = service.watch_of(row)
    if row.name not in watch.rows.plans:  # it was submitted a moment ago
        watch.look()
    if row.name not in watch.rows.plans:
        return HTMLResponse(message_page(watch.problem or "Its plan is not in the store yet: look again in a moment."))
    return HTMLResponse(_pages(request).live(service, row))


@web.get("/studies/{name}/report.html", response_class=HTMLResponse)
def report(name: str, request: Request, who: Reader, service: Running) -> Response:
    row = service.studies.find(name)
    text = _pages(request).report(service, row)["report.html"]
    digest = base64.b64encode(hashlib.sha256(part("page.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


@web.get("/studies/{name}/records.csv")
def records(name: str, request: Request, who: Reader, service: Running) -> Response:
    text = _pages(request).report(service, service.studies.find(name))["records.csv"]
    return Response(text, media_type="text/csv", headers={"Content-Disposition": "attachment; filename=records.csv"})


@web.get("/login", response_class=HTMLResponse)
def login_page() -> str:
    return _page("login.html", problem="")


@web.post("/login")
async def login(request: Request) -> Response:
    token = parse_qs((await request.body()).decode(errors="replace")).get("token", [""])[0].strip()
    client, access = client_of(request), request.app.state.access
    access.count(client)
    try:
        access.who(client, {"authorization": f"Bearer {token}"}, {})
    except Unauthorised:
        return HTMLResponse(_page("login.html", problem="This token is not valid."), 401)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
    return answer


@web.post("/logout")
def logout() -> Response:
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE)
    return answer


@web.get("/static/{name}")
def static(name: str) -> Response:
    if name in _STATIC:
        return Response(part(name), media_type=_STATIC[name])
    if name in _OWN:
        return Response((Path(__file__).parent / "pages" / name).read_text(), media_type=_OWN[name])
    return Response(status_code=404)


@web.get("/docs", response_class=HTMLResponse)
def docs(request: Request) -> str:
    description = request.app.openapi()
    schemas = description.get("components", {}).get("schemas", {})
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "body": _schema(operation.get("requestBody"), schemas),
            "answer": _schema(operation.get("responses", {}).get("200"), schemas),
        }
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return _page("docs.html", operations=operations, version=description["openapi"])


def _schema(of: dict[str, Any] | None, schemas: dict[str, Any]) -> str:
    """The JSON schema of a body, its parts included; empty where there is none."""
    found = ((of or {}).get("content") or {}).get("application/json", {}).get("schema")
    if not found:
        return ""
    shown: dict[str, Any] = {}
    text = json.dumps(found)
    while missing := [name for name in schemas if f'"#/components/schemas/{name}"' in text and name not in shown]:
        shown |= {name: schemas[name] for name in missing}
        text = json.dumps([found, shown])
    parts = [json.dumps(found, indent=1), *(f"{name} = {json.dumps(each, indent=1)}" for name, each in shown.items())]
    return "\n\n".join(parts)


def _pages(request: Request) -> Pages:
    found: Pages = request.app.state.pages
    return found
