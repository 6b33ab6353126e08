"""A file of prompts answered: JSON lines in, JSON lines out, in the same order.

Answers go to `OUT.part` as they are known, and `OUT` appears when all are there, so that what looks
complete is. The first line of `OUT.part` says of which job it is; a job that was interrupted goes
on after the last whole line.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from coterie.api.given import layer_of
from coterie.api.model import Model
from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import DataError, SettingsError, UserError
from coterie.foundation.files import atomic_file, own_file, sha256_bytes
from coterie.foundation.layers import Layer
from coterie.foundation.records import parse_json
from coterie.generate import Generation, Piece, Request

_JOB = "job"


@dataclass(frozen=True)
class Prompt:
    """One line of the file: what it calls itself, and what it asks."""

    id: Any
    request: Request


def read_prompts(model: Model, path: Path, *layers: Layer) -> list[Prompt]:
    """Return the prompts of a file; all of them are looked at before any is answered.

    A line is an object with a `prompt`, perhaps an `id`, and keys of the sampling settings.

    Args:
        model: it has sampling settings of its own, over which layers and lines are laid.
        path: JSON lines.
        layers: settings for all lines.

    Raises:
        DataError: the file cannot be read, has no line, or one that is not such; its number is
            told.
        SettingsError: a layer does not fit.
    """
    model.sampling(*layers)
    lines = _read(path).splitlines()
    found = [
        _prompt(model, line, f"line {number} of {path}", layers)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise DataError(
            f"{path} has no prompt.", hint='Write one a line, such as {"prompt": "ROMEO:"}'
        )
    return found


def _prompt(model: Model, line: bytes, what: str, layers: tuple[Layer, ...]) -> Prompt:
    value = parse_json(line, what, DataError)
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise DataError(
            f"{what} has no “prompt” that is a text.",
            hint='A line looks like {"prompt": "ROMEO:", "id": 7, "max_tokens": 40, "seed": 1}',
        )
    keys = {key: each for key, each in value.items() if key not in ("prompt", "id")}
    try:
        sampling = model.sampling(*layers, layer_of(keys, what))
    except SettingsError as error:
        raise DataError(f"{what} does not fit: {error.message}", hint=error.hint) from error
    return Prompt(value.get("id"), Request(value["prompt"], sampling))


def answers(
    prompts: list[Prompt], run: Callable[[Iterable[Request]], Iterator[tuple[Request, Piece]]]
) -> Iterator[dict[str, Any]]:
    """Yield the answers in the order of the prompts, each as soon as all before it are there."""
    pieces: dict[int, list[Piece]] = {id(each.request): [] for each in prompts}
    ended: set[int] = set()
    waiting = iter(prompts)
    following = next(waiting, None)
    for request, piece in run(each.request for each in prompts):
        pieces[id(request)].append(piece)
        if piece.finish_reason is not None:
            ended.add(id(request))
        while following is not None and id(following.request) in ended:
            yield _answer(following, pieces.pop(id(following.request)))
            following = next(waiting, None)


def _answer(prompt: Prompt, pieces: list[Piece]) -> dict[str, Any]:
    asked = prompt.request
    made = Generation.collected(str(asked.prompt), 0, pieces, 0.0)
    answer: dict[str, Any] = {} if prompt.id is None else {"id": prompt.id}
    answer |= {"prompt": made.prompt, "text": made.text, "finish_reason": made.finish_reason}
    if made.error is not None:
        return answer | {"error": f"{type(made.error).__name__}: {made.error}"}
    if made.scores:
        answer |= {"score": made.score, "scores": made.scores}
    if made.report is not None:
        answer["report"] = made.report.as_json()
    return answer | {"tokens": len(made.tokens), "seed": asked.sampling.seed}


def answer_file(
    model: Model, path: Path, out: Path, *layers: Layer, told: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Answer a file of prompts into another; return the answers that were made now.

    Args:
        model: the model.
        path: JSON lines, as `read_prompts` takes them.
        out: the file that appears when all are answered.
        layers: settings for all lines.
        told: called with a sentence where an interrupted job goes on.

    Raises:
        DataError: the prompts cannot be read.
        UserError: `out` exists, or what was begun there is another job's.
    """
    prompts = read_prompts(model, path, *layers)
    job = {
        "prompts": sha256_bytes(_read(path)),
        "settings": sha256_bytes(model.sampling(*layers).model_dump_json().encode()),
        "checkpoint": f"{model.path.resolve()}, step {model.step}",
    }
    part = out.with_name(f"{out.name}.part")
    with own_file(out, "answering prompts", replace=False):
        begun = _begun(part, job)
        if begun:
            told(f"{len(begun):,} of {len(prompts):,} prompts were answered before; going on.")
        with explain_disk_errors(str(part)):
            out.parent.mkdir(parents=True, exist_ok=True)
            made = _go_on(model, prompts[len(begun) :], part, [_line({_JOB: job}), *begun])
        with atomic_file(out, replace=False) as partial:
            partial.write_bytes(b"".join(_read(part).splitlines(keepends=True)[1:]))
        part.unlink()
    return made


def _go_on(
    model: Model, prompts: list[Prompt], part: Path, before: list[bytes]
) -> list[dict[str, Any]]:
    """Write the answers that are missing after those that are there."""
    made = []
    with part.open("wb" if len(before) == 1 else "r+b") as file:
        if len(before) == 1:
            file.write(before[0])
        else:
            file.truncate(sum(map(len, before)))
            file.seek(0, 2)
        file.flush()
        for answer in answers(prompts, model.run) if prompts else ():
            file.write(_line(answer))
            file.flush()  # what was written outlives the process, however that ends
            made.append(answer)
    return made


def _begun(part: Path, job: dict[str, str]) -> list[bytes]:
    """Return the whole answers of an interrupted job, as they stand.

    Raises:
        UserError: they are another job's.
    """
    try:
        lines = part.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = []
    for line in lines:
        try:
            value = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            break
        whole.append((value, line))
    if not whole:
        return []
    theirs = whole[0][0].get(_JOB)
    differing = [
        name for name in job if not isinstance(theirs, dict) or theirs.get(name) != job[name]
    ]
    if differing:
        raise UserError(
            f"{part} was begun with another job: its {' and '.join(differing)} differ.",
            hint="Give another --out, go back to what it was, or delete that file to begin anew.",
        )
    return [line for _, line in whole[1:]]


def write_answers(answered: Iterable[dict[str, Any]], stream: TextIO) -> int:
    """Write answers to a stream as they come; return how many failed."""
    failed = 0
    for answer in answered:
        failed += "error" in answer
        stream.write(_line(answer).decode())
        stream.flush()
    return failed


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
