"""`coterie report`: one page about one run, or one page that compares several."""

from pathlib import Path

from coterie.cli.console import console, emit_json, next_step
from coterie.cli.words import read_words
from coterie.foundation.errors import UserError
from coterie.foundation.runs import find_run

_USAGE = "For example: coterie report latest   or   coterie report RUN OTHER_RUN"


def report(
    *words: str,
    out: Path | None = None,
    plots: Path | None = None,
    views: list[str] | None = None,
    json: bool = False,
) -> None:
    """Make one HTML page about a run, or one that compares several: `coterie report RUN…`.

    The page is one file that works offline. It is made from the run's events alone, so it can be
    made while the run goes on. Without a RUN it is about the latest one.

    Parameters
    ----------
    words
        Runs: names, paths or `latest`.
    out
        Where to write the page; by default report.html in the run's directory, or comparison.html
        beside the first of several.
    plots
        Also write loss, learning rate and load per expert as SVG and PNG into this folder.
    views
        Import this module first, such as my_lab.events, which declares events and adds sections.
    json
        Print the headline figures and the written files as JSON.
    """
    from coterie.cli.runs import complain
    from coterie.visualise.report import write_comparison, write_report
    from coterie.visualise.sections.section import import_views
    from coterie.visualise.series import read_series

    import_views(views or ())
    read = read_words(words)
    if read.overrides or read.overlays:
        odd = [*read.overrides, *(f"@{path}" for path in read.overlays)]
        raise UserError(f"A report takes runs only, not {' '.join(odd)}.", hint=_USAGE)
    runs = list(dict.fromkeys(find_run(target) for target in read.targets or ("latest",)))
    page = write_report(runs[0], out) if len(runs) == 1 else write_comparison(runs, out)
    pictures: list[Path] = []
    if plots is not None:
        from coterie.visualise.plots import write_plots

        for run in runs:
            pictures += write_plots(run, plots if len(runs) == 1 else plots / run.name)
    series = [read_series(run) for run in runs]
    complain(problem for each in series for problem in each.complaints)
    if json:
        figures = [each.headline() for each in series]
        emit_json({"report": str(page), "plots": [str(path) for path in pictures], "runs": figures})
        return
    console.print(str(page), soft_wrap=True)
    for path in pictures:
        console.print(str(path), soft_wrap=True)
    name = runs[0].name
    steps = [f"open {page}  # in a browser; it needs no network"]
    if len(runs) == 1:
        steps.append(f"coterie report {name} OTHER_RUN  # compare with another run")
    if any(runs[0].checkpoints.glob("step-*")):
        steps.append(f'coterie generate {name} "ROMEO:"  # let the model write')
    next_step(*steps)
