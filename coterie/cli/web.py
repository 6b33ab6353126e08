"""What `--web` and `--export` do: the page served on this machine, or written to one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from cyclopts import Parameter

from coterie.cli.console import console, next_step, note
from coterie.foundation.errors import MissingExtraError, UserError
from coterie.foundation.runs import RunDirectory, list_runs
from coterie.foundation.traces import Trace

if TYPE_CHECKING:
    from coterie.api.model import Model
    from coterie.foundation.layers import Layer
    from coterie.visualise.web.studio import Studio


@Parameter(name="*")
@dataclass(frozen=True)
class PageFlags:
    """A view in the browser."""

    web: Annotated[bool, Parameter(help="Open it in the browser: serves a page to it.")] = False
    export: Annotated[
        Path | None,
        Parameter(help="Write one HTML file with the text inside, which works offline."),
    ] = None
    host: Annotated[
        str, Parameter(help="The address that --web listens at; by default this machine alone.")
    ] = "127.0.0.1"
    port: Annotated[int, Parameter(help="Its port; 0: any free one.")] = 0
    control: Annotated[bool, Parameter(help="Let the page of --web stop and resume runs, too.")] = (
        False
    )

    @property
    def asked(self) -> bool:
        return self.web or self.export is not None


NO_PAGE = PageFlags()


def export(path: Path, traces: Mapping[str, Trace]) -> None:
    """Write traces, by their titles, to one HTML file."""
    from coterie.visualise.web.export import write_export
    from coterie.visualise.web.pack import packed

    write_export(path, [packed(trace, title) for title, trace in traces.items()])
    next_step(f"xdg-open {path}  # one file, complete: it needs no network")


def show_traces(traces: Mapping[str, Trace], page: PageFlags) -> None:
    """Serve traces, by their titles, until interrupted."""
    from coterie.visualise.web.studio import Studio

    studio = Studio()
    for title, trace in traces.items():
        studio.show(trace, title)
    _serve(studio, page, "")


def show_writing(
    model: Model,
    layers: Sequence[Layer],
    prompt: str,
    hands: tuple[Sequence[str], Sequence[str]],
    page: PageFlags,
) -> None:
    """Serve a model that writes a text, and more when the page asks for them."""
    from coterie.api.author import ModelAuthor
    from coterie.visualise.web.studio import Ask, Studio

    studio = Studio(ModelAuthor(model, layers), note)
    studio.write(Ask(prompt=prompt, masked=tuple(hands[0]), forced=tuple(hands[1])))
    _serve(studio, page, "")


def serve_runs(run: RunDirectory, page: PageFlags) -> None:
    """Serve the board of a run and of all others below the root, open at the one."""
    from coterie.visualise.web.studio import Studio

    _serve(Studio(), page, f"training&run={quote(run.name)}", run)


def _serve(studio: Studio, page: PageFlags, view: str, run: RunDirectory | None = None) -> None:
    try:
        from coterie.visualise.web.runs import Board
        from coterie.visualise.web.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise MissingExtraError(error.name, "web") from error
    if not 0 <= page.port < 1 << 16:
        raise UserError(f"--port {page.port}: ports go from 0 (any free one) to 65535.")

    def tell(address: str) -> None:
        console.print(f"Open {address}", soft_wrap=True, highlight=False)
        note("the address holds a token: whoever has it can use the page. Ctrl-C stops serving.")

    def listed() -> list[RunDirectory]:
        others = [each for each in list_runs() if run is None or each.name != run.name]
        return others if run is None else [*others, run]

    board = Board(listed, control=page.control)
    serve(studio, board, host=page.host, port=page.port, tell=tell, view=view)
