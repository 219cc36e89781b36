"""The live pages over HTTP, for one browser on this machine: whoever lacks the token gets nothing."""

import re
import secrets
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchrun.errors import BatchrunError, LockedError, UsageError
from batchrun.runs.by_hand import Remark
from batchrun.runs.report.page import templates
from batchrun.runs.view import pages, table
from batchrun.runs.view.jobs import FoundJob, read_again
from batchrun.runs.view.viewed import ViewedJob

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Without it the browser names no Origin in a form of this page.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_FILES = {
    "page.css": ("batchrun.runs.report", "text/css"),
    "page.js": ("batchrun.runs.report", "text/javascript"),
    "view.css": ("batchrun.runs.view", "text/css"),
    "view.js": ("batchrun.runs.view", "text/javascript"),
    "icon.svg": ("batchrun.runs.view", "image/svg+xml"),
}
MOST_BYTES_OF_A_FORM = 1_000_000


class Pages:
    """The pages of some jobs under `root`, a path that holds the token. Starlette calls them in threads."""

    def __init__(self, found: Sequence[FoundJob], token: str, *, sandbox: bool) -> None:
        self.root = f"/{token}"
        self._sandbox = sandbox
        self._lock = threading.Lock()
        self._found = list(found)
        self._jobs = list(map(self._viewed, found))

    def routes(self) -> list[Route]:
        job = f"{self.root}/job/{{job:int}}"
        return [
            Route(f"{self.root}/", self.jobs),
            Route(f"{job}/", self.job),
            Route(f"{job}/live", self.live),
            Route(f"{job}/rows", self.rows),
            Route(f"{job}/rows.csv", self.download),
            Route(f"{job}/row/{{row:int}}", self.row, methods=["GET"]),
            Route(f"{job}/row/{{row:int}}", self.say, methods=["POST"]),
            Route(f"{job}/set", self.set, methods=["POST"]),
            Route(f"{job}/again", self.again, methods=["POST"]),
            *(Route(f"{self.root}/{name}", _file) for name in _FILES),
        ]

    def close(self) -> None:
        for job in self._jobs:
            if job is not None:
                job.close()

    def jobs(self, request: Request) -> Response:
        if len(self._found) == 1:
            return RedirectResponse(f"{self.root}/job/1/")
        return self._page("jobs.html", jobs=[self._line(number) for number in range(len(self._found))])

    def job(self, request: Request) -> Response:
        job, named = self._job(request)
        by = request.query_params.get("by") or None
        state = job.state()
        if state is None:
            return self._message(
                "Nothing has been run yet", ["This page shows the run once it has begun."], named, reload=True
            )
        facts, error = job.facts(by)
        values = pages.job_values(state, facts, error)
        columns = [] if facts is None else facts.columns
        return self._page("job.html", job=named, by=by, columns=columns, **values)

    def live(self, request: Request) -> Response:
        job, named = self._job(request)
        state = job.state()
        if state is None:
            raise HTTPException(404)
        by = request.query_params.get("by") or None
        facts, _ = job.facts(by, patience=0)
        return self._page("job.html", job=named, by=by, **pages.live_values(state, facts))

    def rows(self, request: Request) -> Response:
        job, named = self._job(request)
        file = job.rows()
        if file is None:
            lines = ["The rows are being read from the journal. This page shows them once they are there."]
            return self._message("Rows", lines, named, reload=True)
        choice, page = table.choice_of(file, request.query_params.multi_items())
        found = table.found_rows(file, choice)
        number = file.rows if found is None else len(found)
        page = min(page, pages.pages_of(number))
        read = table.rows_of_page(file, choice, page, pages.columns_of_page(file))
        choices = {
            "status": pages.status_counts(table.values_of(file, "status")),
            "reason": table.values_of(file, "error_code"),
            "label": table.values_of(file, "label"),
        }
        values = pages.rows_values(file, choice, page, number, read, choices)
        return self._page("rows.html", job=named, being_made=job.reads_rows, running=job.is_running, **values)

    def download(self, request: Request) -> Response:
        job, named = self._job(request)
        file = job.rows()
        if file is None:
            raise HTTPException(503, "The rows are being read. Try again in a moment.")
        choice, _ = table.choice_of(file, request.query_params.multi_items())
        parts = table.csv_parts(file, table.found_rows(file, choice))
        headers = {"content-disposition": f'attachment; filename="{_plain_name(named["name"])}-rows.csv"'}
        return StreamingResponse(parts, media_type="text/csv; charset=utf-8", headers=headers)

    def row(self, request: Request) -> Response:
        job, named = self._job(request)
        index = request.path_params["row"] - 1
        if index < 0:
            raise UsageError("The input has no row 0: rows are counted from 1.")
        read, remark = job.row(index)
        file = job.rows()
        if file is None:
            values = pages.row_page_values(read, remark, table.Choice())
            return self._page("row.html", job=named, **job.review, **values)
        choice, _ = table.choice_of(file, request.query_params.multi_items())
        beside = table.neighbors(table.found_rows(file, choice), file.rows, index)
        shared = table.is_shared(file, index)
        values = pages.row_page_values(read, remark, choice, beside, shared=shared)
        return self._page("row.html", job=named, **job.review, **values)

    async def say(self, request: Request) -> Response:
        job, _ = self._job(request)
        form = await _form(request)
        note = form.get("note", "").replace("\r\n", "\n").strip()  # as browsers send a line's end
        remark = Remark(form.get("correct", "").strip(), note)
        await run_in_threadpool(job.say, request.path_params["row"] - 1, remark)
        return RedirectResponse(f"{request.url.path}?{request.url.query}", 303)

    async def set(self, request: Request) -> Response:
        job, named = self._job(request)
        assignments = pages.changed_settings(await _form(request))
        if assignments:
            await run_in_threadpool(job.change, assignments)
        return RedirectResponse(f"{self.root}/job/{named['number']}/", 303)

    async def again(self, request: Request) -> Response:
        job, named = self._job(request)
        page = "rows" if (await _form(request)).get("page") == "rows" else ""
        job.read_again()
        return RedirectResponse(f"{self.root}/job/{named['number']}/{page}?{request.url.query}", 303)

    def _line(self, place: int) -> pages.Values:
        found, job = self._current(place)
        try:
            state, error = (None, found.error) if job is None else (job.state(), None)
        except BatchrunError as fault:
            state, error = None, str(fault)
        return pages.job_line(place + 1, found.name, state, error)

    def _job(self, request: Request) -> tuple[ViewedJob, dict[str, Any]]:
        named = self._named(request)
        if named is None:
            raise HTTPException(404)
        found, job = self._current(named["number"] - 1)
        if job is None:
            raise UsageError(found.error or "The job can't be read.")
        return job, named

    def _named(self, request: Request) -> dict[str, Any] | None:
        number = request.path_params.get("job", 0)
        inside = 0 < number <= len(self._found)
        return {"number": number, "name": self._found[number - 1].name} if inside else None

    def _current(self, place: int) -> tuple[FoundJob, ViewedJob | None]:
        """Returns a job as its files have it now: a cap that was raised is shown without another start."""
        with self._lock:
            newer = read_again(self._found[place])
            if newer is not self._found[place]:
                if (old := self._jobs[place]) is not None:
                    old.close()
                self._found[place], self._jobs[place] = newer, self._viewed(newer)
            return self._found[place], self._jobs[place]

    def _viewed(self, found: FoundJob) -> ViewedJob | None:
        return None if found.job is None else ViewedJob(found.job, sandbox=self._sandbox)

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(render(name, root=self.root, **values), status)

    def _message(
        self,
        title: str,
        lines: Sequence[str],
        job: dict[str, Any] | None,
        *,
        reload: bool = False,
        status: int = 200,
    ) -> Response:
        return self._page("message.html", status, title=title, lines=lines, job=job, reload=reload)

    def on_error(self, request: Request, error: Exception) -> Response:
        """Shows an error of batchrun as a page."""
        kinds = {UsageError: 400, LockedError: 409}
        status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 500)
        title = "This can't be shown" if request.method == "GET" else "Nothing was changed"
        return self._message(title, str(error).splitlines(), self._named(request), status=status)


def application(pages_of_jobs: Pages, port: int) -> ASGIApp:
    """Returns the application for a server on loopback at `port`."""
    app = Starlette(routes=pages_of_jobs.routes(), exception_handlers={BatchrunError: pages_of_jobs.on_error})
    return Guard(app, pages_of_jobs.root, port)


def new_token() -> str:
    return secrets.token_urlsafe(24)


class Guard:
    """Lets through what a browser asks for from this page's own address, and adds the headers.

    A page of someone else can reach loopback too: by a name of its own (Host), or from its own address
    (Origin). It doesn't know the token.
    """

    def __init__(self, app: ASGIApp, root: str, port: int) -> None:
        self._app = app
        self._root = root.encode()
        names = (b"127.0.0.1", b"localhost")
        self._hosts = {b"%s:%d" % (name, port) for name in names} | (set(names) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else PlainTextResponse(refusal[1], refusal[0])
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if host not in self._hosts:
            return 403, "This address is not the one that batchrun view has printed."
        if origin is None and scope["method"] not in ("GET", "HEAD"):
            return 403, "A change needs an Origin."
        if origin is not None and origin != b"http://" + host:
            return 403, "Another page may not use this one."
        token = scope["path"].encode()[: len(self._root) + 1]
        if not secrets.compare_digest(token, self._root + b"/"):
            return 404, "Open the address that batchrun view has printed."
        return None


async def _form(request: Request) -> dict[str, str]:
    """Returns the fields of a form, as a browser sends it. Raises HTTPException for a body that is none."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES_OF_A_FORM:
            raise HTTPException(413)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise HTTPException(400) from None


def _plain_name(job_file: str) -> str:
    """Returns the name without its ending, of characters that a header may have between quotes."""
    return re.sub(r"[^ -~]|[\"\\]", "_", Path(job_file).stem)


def _file(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    package, kind = _FILES[name]
    return Response(_text(package, name), media_type=kind)


@cache
def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> str:
    here = files("batchrun.runs.view").joinpath(name)
    return _text("batchrun.runs.view" if here.is_file() else "batchrun.runs.report", name)


def render(name: str, **values: Any) -> str:
    """Returns a page from its template and plain values."""
    return str(_templates().render_template(name, **values))


@cache
def _templates() -> Any:
    return templates(_template)
