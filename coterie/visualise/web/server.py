"""The server behind the page: texts as they are written, runs as they train, and nothing else."""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from coterie.foundation.errors import CoterieError, UserError
from coterie.visualise.web.export import export_page
from coterie.visualise.web.guard import Guard
from coterie.visualise.web.runs import Board
from coterie.visualise.web.studio import Ask, Effect, Lapse, Shown, Studio

_PAGE = files("coterie.visualise.web").joinpath("page")
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_TICK = 1 / 30  # seconds between two looks for new tokens
_RUN_TICK = 1.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def make_app(studio: Studio, board: Board, hosts: list[str], token: str) -> Guard:
    """Return the application, guarded.

    Args:
        hosts: names with ports that the server goes by.
        token: what each request must carry.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(CoterieError)
    def told(request: Request, error: CoterieError) -> Response:
        return JSONResponse({"problem": str(error)}, 422)

    _add_page(app)
    _add_texts(app, studio, control=board.control)
    _add_runs(app, board)
    return Guard(app, hosts, token)


def _add_page(app: FastAPI) -> None:
    # What is served is looked up here, so that no path of a request reaches the disk.
    assets = {each.name: each.read_bytes() for each in _PAGE.iterdir()}

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(assets["index.html"])

    @app.get("/page/{name}")
    def asset(name: str) -> Response:
        if name not in assets:
            return Response("Not found.", 404)
        return Response(assets[name], media_type=_KINDS["." + name.rpartition(".")[2]])


def _add_texts(app: FastAPI, studio: Studio, *, control: bool) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        model = studio.author.facts() if studio.author else None
        texts = [each.facts() for each in list(studio.texts.values())]
        return {"model": model, "control": control, "texts": texts}

    @app.post("/api/texts")
    def write(ask: Ask) -> dict[str, Any]:
        return studio.write(ask).facts()

    @app.post("/api/effect")
    def effect(asked: Effect) -> dict[str, Any]:
        return studio.effect(asked)

    @app.post("/api/lapse")
    def lapse(asked: Lapse) -> dict[str, Any]:
        return studio.lapse(asked)

    @app.post("/api/texts/{number}/stop")
    def stop(number: int) -> dict[str, Any]:
        studio.find(number).stopped = True
        return {}

    @app.get("/api/texts/{number}/events")
    def events(number: int, request: Request) -> Response:
        shown = studio.find(number)
        last = request.headers.get("last-event-id", "")
        start = int(last) if last.isdecimal() and len(last) < 10 else 0
        return _stream(_text_events(shown, start))

    @app.get("/api/export")
    def export(texts: str = "") -> Response:
        wanted = [number for number in texts.split(",") if number.isdecimal() and len(number) < 10]
        packs = [studio.find(int(number)).pack() for number in wanted]
        if not packs:
            raise UserError("No text was named that is to be exported.")
        name = {"content-disposition": 'attachment; filename="coterie.html"'}
        return HTMLResponse(export_page(packs), headers=name)


def _add_runs(app: FastAPI, board: Board) -> None:
    @app.get("/api/runs")
    def runs() -> list[dict[str, Any]]:
        return board.listing()

    @app.post("/api/runs/{name}/{what}")
    def act(name: str, what: Literal["stop", "resume"]) -> dict[str, str]:
        return {"done": board.act(name, what)}

    @app.get("/api/runs/{name}/events")
    def run_events(name: str) -> Response:
        board.curves(name)  # refused at once where there is none
        return _stream(_run_events(board, name))


async def _text_events(shown: Shown, start: int) -> AsyncIterator[str]:
    """Yield a text's opening, its tokens as they come, and how it ended."""
    if not start:
        yield _event("opening", shown.opening())
    while True:
        done, upto = shown.done, len(shown.parts)
        part = shown.since(start)
        if part is not None:
            start = upto
            yield _event("tokens", part, start)
        elif done:
            yield _event("ending", {"ending": shown.ending, "problem": shown.problem})
            return
        await asyncio.sleep(_TICK)


async def _run_events(board: Board, name: str) -> AsyncIterator[str]:
    """Yield a run's curves, each time that they have grown."""
    before = ""
    while True:
        try:
            now = await asyncio.to_thread(lambda: _dumped(board.curves(name)))
        except CoterieError as error:
            yield _event("problem", {"problem": str(error)})
            return
        if now != before:
            yield f"event: curves\ndata: {now}\n\n"
            before = now
        else:
            yield ": still here\n\n"
        await asyncio.sleep(_RUN_TICK)


def _event(kind: str, value: object, number: int | None = None) -> str:
    name = "" if number is None else f"id: {number}\n"
    return f"{name}event: {kind}\ndata: {_dumped(value)}\n\n"


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))  # ASCII: no line break can stand in it


def _stream(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")


def serve(
    studio: Studio,
    board: Board,
    *,
    host: str,
    port: int,
    tell: Callable[[str], None],
    view: str = "",
) -> None:
    """Serve the page until interrupted.

    Args:
        host: the address to listen at; one that stands for all addresses is refused.
        port: 0: any free one.
        tell: told the address of the page, token included.
        view: the view that the page opens with.

    Raises:
        UserError: the address cannot be listened at.
    """
    if host in ("", "0.0.0.0", "::", "*"):
        raise UserError(
            f"--host {host} is every address of this machine, which no browser can be asked for.",
            hint="Name one: --host 127.0.0.1 (this machine alone), or an address that others use.",
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f"{host}:{port} cannot be listened at: {error.strerror}.") from error
    port = listening.getsockname()[1]
    own = f"[{host}]" if ":" in host else host
    names = [own, *(_LOOPBACK if own in _LOOPBACK else ())]
    token = secrets.token_urlsafe(24)
    app = make_app(studio, board, [f"{name.lower()}:{port}" for name in names], token)
    tell(f"http://{own}:{port}/?token={token}{'&view=' + view if view else ''}")
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=1 << 16, server_header=False, ws="none",
    )  # fmt: skip
    uvicorn.Server(settings).run(sockets=[listening])
