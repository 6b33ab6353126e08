"""`coterie generate`: write text with a trained model, shown as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from coterie.checkpoint.hashing import begin_ahead
from coterie.cli.console import console, emit_json, next_step, note, stderr
from coterie.cli.flags import refuse_flags
from coterie.cli.words import Words, read_words, standard_input
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer
from coterie.foundation.printable import printable

if TYPE_CHECKING:
    from coterie.api.model import Model, StreamedText, Text
    from coterie.generate import Report, SamplingSettings, TopLogprobs
    from coterie.generate.resumable import ResumableText

_USAGE = 'For example: coterie generate latest "To be" temperature=0.8 max_tokens=200 seed=1'
_HYPHEN = (
    "Run: coterie generate --help   (a prompt that begins so can come through standard input: "
    "echo PROMPT | coterie generate RUN -)"
)
_FLAGS = ("--json", "--samples", "--prompts", "--out", "--session", "--step", "--device", "--chat")
_SAVE_EVERY = 30.0  # seconds
_ENDS = {
    "length": "max_tokens reached",
    "stop": "a stop text was met",
    "end": "the model ended the text",
    "error": "it failed",
}


def generate(
    *words: Annotated[str, Parameter(allow_leading_hyphen=True)],
    json: bool = False,
    samples: int = 1,
    prompts: Path | None = None,
    out: Path | None = None,
    session: Path | None = None,
    step: int | None = None,
    device: str = "auto",
    chat: bool = False,
) -> int | None:
    """Write text with a trained model: `coterie generate RUN PROMPT [key=value ...]`.

    RUN is a run's name, `latest`, or the path of a run or checkpoint. Without a PROMPT the model
    begins a new text; `-` reads it from standard input. Keys are those of the run's own `sample`
    settings: temperature (0 is greedy), top_k, top_p, min_p, seed, max_tokens, stop, logprobs,
    cache (cache.size=N) and others: coterie settings sample. `form=sonnet`, `metre=…`, `rhyme=…`
    steer verse, `structure=drama` plays; `best_of=8` keeps the likeliest of eight texts,
    `report=true` tells what constraints did. `weights=int8` or `int4` quantises the weights.

    Parameters
    ----------
    words
        The run, the prompt, and settings as key=value.
    json
        Print JSON: the settings, the text, its tokens and their log-probabilities.
    samples
        How many texts to write, side by side; their seeds count up from `seed`.
    prompts
        Answer a file of JSON lines, {"prompt": …} and perhaps an id and keys of its own, in order.
    out
        Where the answers go, JSON lines; an interrupted job goes on there. Else standard output.
    session
        Go on with the text of this file, or begin one: it keeps text, cache and random stream;
        several commands write what one would have. Without a PROMPT where the file exists.
    step
        Use the checkpoint of this step instead of the newest.
    device
        Where to compute: auto, cpu, cuda, mps.
    chat
        Answer the PROMPT as what a user says, in the model's chat template.
    """
    said, weights = read_words(words).take_settings("weights")
    target, prompt = _target_and_prompt(said)
    _refuse_contradictions(prompt, prompts, out, session, alone=not json and samples == 1)
    model = _load(target, step, device, weights)
    prompt = _asked(model, prompt, prompts, session) if chat else prompt
    if prompts is not None:
        return int(_answer_file(model, prompts, out, said.layers()) > 0)
    if session is not None:
        return _go_on(model, prompt, session, said.layers())
    sampling = model.sampling(*said.layers())
    if json:
        return emit_json(_as_json(model, sampling, model.generate_with(prompt, sampling, samples)))
    if samples == 1 and sampling.beams is None and sampling.best_of == 1:
        show_stream(model.stream_with(prompt, sampling), prompt)
    else:
        _show_samples(model.generate_with(prompt, sampling, samples))
    next_step(f"coterie evaluate {target}  # how well it predicts its own data or any file")
    return None


def _asked(model: Model, prompt: str, prompts: Path | None, session: Path | None) -> str:
    """Return what a user says as the model reads it."""
    if prompts is not None or session is not None:
        raise UserError("--chat answers one PROMPT: leave --prompts and --session out.")
    if not prompt:
        raise UserError("--chat needs a PROMPT: what the user says.", hint=_USAGE)
    return model.chat_prompt(prompt)


def _load(target: str, step: int | None, device: str, weights: list[Layer]) -> Model:
    """Load the run's model; its files are hashed while torch is imported, a second or two."""
    begin_ahead(target, step)
    from coterie.api.model import load
    from coterie.quantise import chosen_weights

    return load(target, step=step, device=device, weights=chosen_weights(*weights))


def _answer_file(model: Model, prompts: Path, out: Path | None, layers: list[Layer]) -> int:
    """Answer a file of prompts, say on standard error how many failed, and return that."""
    from coterie.api.answers import answer_file, answers, read_prompts, write_answers

    if out is None:
        asked = read_prompts(model, prompts, *layers)
        failed = write_answers(answers(asked, model.run), sys.stdout)
    else:
        made = answer_file(model, prompts, out, *layers, told=note)
        failed = sum("error" in answer for answer in made)
        note(f"{len(made):,} prompts answered now; all answers are in {out}")
    if failed:
        note(f"{failed:,} prompts failed; their lines have the error.")
    return failed


def _target_and_prompt(said: Words) -> tuple[str, str]:
    """Return the run and the prompt; the words of an unquoted prompt are joined.

    Raises:
        UserError: no run was named, a word looks like a flag, or standard input is not text.
    """
    refuse_flags(said.targets, "generate", _FLAGS, _HYPHEN)
    if not said.targets:
        raise UserError("Which run? None was named.", hint=_USAGE)
    prompt = " ".join(said.targets[1:])
    if prompt == "-":
        prompt = standard_input().removesuffix("\n")  # the shell's own, not the writer's
    return said.targets[0], prompt


def _refuse_contradictions(
    prompt: str, prompts: Path | None, out: Path | None, session: Path | None, *, alone: bool
) -> None:
    """Refuse flags that exclude each other; `alone`: one text is to be shown as it comes."""
    if prompts is None and out is not None:
        raise UserError("--out is for the answers to --prompts FILE.jsonl.", hint=_USAGE)
    if prompts is not None and (prompt or session or not alone):
        raise UserError("--prompts takes no prompt, --samples or --json besides.", hint=_USAGE)
    if session is not None and not alone:
        raise UserError("--session writes one text as it comes: leave --json and --samples out.")


def _go_on(model: Model, prompt: str, path: Path, layers: Sequence[Layer]) -> None:
    text = model.resumable(path, prompt, *layers)
    show_stream(_saving(text, path), prompt)


def _saving(text: ResumableText, path: Path) -> Iterator[StreamedText]:
    """Yield the pieces of a text, saving it now and then and at the end."""
    from coterie.api.model import StreamedText

    saved = time.monotonic()
    for piece in text.stream():
        yield StreamedText(piece)
        if time.monotonic() - saved > _SAVE_EVERY:
            text.save(path)
            saved = time.monotonic()
    text.save(path)


def show_stream(pieces: Iterable[StreamedText], prompt: str) -> None:
    """Print one text as it comes and then, on standard error, how fast it came."""
    if console.is_terminal:
        console.print(prompt, style="dim", end="", soft_wrap=True)
    times = [time.perf_counter()]
    reason = report = None
    for piece in pieces:
        _write(piece)
        times.append(time.perf_counter())
        reason, report = piece.finish_reason, piece.report
    _write("\n")
    count, first = len(times) - 1, times[1] - times[0]
    rate = (count - 1) / (times[-1] - times[1]) if count > 1 else 1 / first
    stderr.print(
        f"{count} tokens, {rate:,.1f} tokens/s, the first after {first:.2f} s; "
        f"{_ENDS[reason or 'length']}",
        style="dim",
    )
    _tell_report(report)


def _tell_report(report: Report | None) -> None:
    """Print what constraints did in a line, and where they removed most."""
    if report is None:
        return
    spent = [len(line.licences) for line in report.lines]
    licences = f"; licences a line: {' '.join(map(str, spent))}" if spent else ""
    stderr.print(
        f"Constraints removed {report.removed:.1%} of the probability at a token; of "
        f"{report.tokens:,} tokens {report.forced:,} were forced, before {report.overruled:,} the "
        f"likeliest was barred, {report.dead_ends:,} of them dead ends{licences}",
        style="dim", markup=False, soft_wrap=True,
    )  # fmt: skip
    for each in report.largest[:3]:
        stderr.print(
            f"  {each.removed:6.1%} after {printable(each.before[-24:])!r}: "
            f"{printable(each.chosen)!r}, not {printable(each.wanted)!r}",
            style="dim", markup=False, soft_wrap=True,
        )  # fmt: skip


def _write(text: str) -> None:
    sys.stdout.write(printable(text) if console.is_terminal else text)
    sys.stdout.flush()


def _show_samples(made: list[Text]) -> None:
    """Print several texts, one after the other."""
    for number, each in enumerate(made, start=1):
        score = "" if each.score is None else f", score {each.score:.4f}"
        score += f", the best of {len(each.scores)}" if each.scores else ""
        title = f"── sample {number} of {len(made)} ({_ENDS[each.finish_reason]}{score})"
        stderr.print(title, style="dim")
        _write(each.text + "\n")
        _tell_report(each.report)
    count = sum(len(each.tokens) for each in made)
    stderr.print(f"{count} tokens, {count / made[0].seconds:,.1f} tokens/s in all", style="dim")


def _as_json(model: Model, sampling: SamplingSettings, made: list[Text]) -> dict[str, Any]:
    decode = model.tokenizer.decode

    def told(top: TopLogprobs) -> list[dict[str, Any]]:
        return [{"token": token, "text": decode([token]), "logprob": each} for token, each in top]

    return {
        "checkpoint": str(model.path),
        "step": model.step,
        "sampling": sampling.model_dump(mode="json"),
        "prompt": made[0].prompt,
        "samples": [
            {
                "text": each.text,
                "finish_reason": each.finish_reason,
                **({} if each.score is None else {"score": each.score}),
                **({"scores": each.scores} if each.scores else {}),
                **({"drafted": each.drafted} if each.drafted else {}),
                **({} if each.report is None else {"report": each.report.as_json()}),
                "prompt_tokens": each.prompt_tokens,
                "seconds": each.seconds,
                "tokens": [
                    {"token": token, "text": decode([token]), "logprob": logprob}
                    | ({"top_logprobs": told(top)} if top else {})
                    for token, logprob, top in zip(
                        each.tokens, each.logprobs, each.top_logprobs, strict=True
                    )
                ],
            }
            for each in made
        ],
    }
