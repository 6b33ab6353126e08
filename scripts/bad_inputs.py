"""Every command that reads texts, given every kind of bad input: refused in words or used, no more.

    python scripts/bad_inputs.py
    python scripts/bad_inputs.py "data dedup" --giant 1073741824

Each command that reads a text, or a store, gets each bad one. It must either succeed or exit with 2
and say in words where the fault is; it must say no traceback, leave nothing half-written, change no
input, and keep its memory within a bound. With `--giant` one more file is a single line of so many
bytes. Prints a table and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
from processes import TEXT, Child, Tally, alone, digest, leftovers, workshop
from pyarrow import parquet

ROW = '{"text": "And so the fool says once more what he says."}\n'
MEMORY = 1 << 30  # bytes above what the parent has
REFUSED = 2


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(here)


def _loop(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(path)
    (path / "self").symlink_to("self")


def _table(path: Path, cut: int = 0, flip: int = 0, **columns: list[object]) -> None:
    """Write a table as Parquet or Arrow, perhaps without its last bytes or with one changed."""
    table = pyarrow.table(columns or {"text": [TEXT[:300]] * 50})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, write_page_checksum=True, compression="none")
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as w:
            w.write_table(table)
    content = bytearray(path.read_bytes())
    if flip:
        content[flip] ^= 0xFF
    path.write_bytes(content[: len(content) - cut])


def _write(content: bytes | str) -> Callable[[Path], None]:
    whole = content.encode() if isinstance(content, str) else content

    def write(path: Path) -> None:
        path.write_bytes(whole)

    return write


BINARY = random.Random(1).randbytes(5000)
INPUTS: dict[str, Callable[[Path], None]] = {
    "missing.txt": lambda path: None,
    "empty.txt": _write(""),
    "blank.txt": _write(" \n\n"),
    "binary.txt": _write(BINARY),
    "latin.txt": _write("Café à la carte, déjà vu.\n".encode("latin-1") * 50),
    "wide.txt": _write(TEXT.encode("utf-16")),
    "cut.txt": _write(TEXT.encode() + "é".encode()[:1]),
    "late.txt": _write(TEXT.encode() * 300 + b"\xff" + TEXT.encode()),
    "packed.txt.gz": _write(b"\x1f\x8b\x08" + BINARY),
    "cut.txt.xz": _write(b"\xfd7zXZ\x00\x00" + BINARY[:50]),
    "empty.jsonl": _write(""),
    "text.jsonl": _write(TEXT),
    "cut.jsonl": _write(ROW * 5 + ROW[:20]),
    "null.jsonl": _write(ROW + '{"text": null}\n' + ROW),
    "number.jsonl": _write(ROW + '{"text": 7}\n'),
    "list.jsonl": _write(ROW + "[1, 2]\n"),
    "twice.jsonl": _write('{"text": "a b", "text": "c d"}\n' + ROW),
    "other.jsonl": _write('{"body": "a b", "title": "c"}\n' * 3),
    "deep.jsonl": _write(ROW + "[" * 100_000 + "\n"),
    "digits.jsonl": _write(ROW + '{"text": "a", "n": ' + "9" * 10_000 + "}\n"),
    "surrogate.jsonl": _write(ROW + '{"text": "\\ud800"}\n'),
    "latin.jsonl": _write(ROW.encode() + b'{"text": "caf\xe9"}\n'),
    "zero.jsonl": _write(ROW + '{"text": "a\0b"}\n'),
    "binary.jsonl": _write(BINARY),
    "empty.csv": _write(""),
    "header.csv": _write("text\n"),
    "ragged.csv": _write("text,n\none,1\ntwo\nthree,3,3\n"),
    "quote.csv": _write('text,n\n"never closed,1\n' + TEXT),
    "latin.csv": _write(b"text,n\ncaf\xe9,1\n"),
    "twice.csv": _write("text,text\na,b\n"),
    "zero.csv": _write("text,n\na\0b,1\n"),
    "empty.parquet": _write(""),
    "text.parquet": _write(TEXT),
    "cut.parquet": lambda path: _table(path, cut=40),
    "flipped.parquet": lambda path: _table(path, flip=200),
    "footer.parquet": lambda path: _table(path, cut=0, flip=-60),
    "numbers.parquet": lambda path: _table(path, text=[1, 2, 3]),
    "nulls.parquet": lambda path: _table(path, text=[None, None]),
    "rows.parquet": lambda path: _table(path, text=pyarrow.array([], pyarrow.string())),
    "several.parquet": lambda path: _table(path, a=["x y"], b=["z"]),
    "latin.parquet": lambda path: _table(path, text=[b"good text", b"caf\xe9"]),
    "empty.arrow": _write(""),
    "text.arrow": _write(TEXT),
    "cut.arrow": lambda path: _table(path, cut=300),
    "flipped.arrow": lambda path: _table(path, flip=8),
    "folder.txt": lambda path: path.mkdir(),
    "folder.jsonl": lambda path: path.mkdir(),
    "pipe.txt": lambda path: os.mkfifo(path),
    "pipe.jsonl": lambda path: os.mkfifo(path),
    "socket.txt": _socket,
    "loop": _loop,
    "dangling.txt": lambda path: path.symlink_to("nowhere"),
    "null.txt": lambda path: path.symlink_to("/dev/null"),
    "endless.txt": lambda path: path.symlink_to("/dev/zero"),
}
STREAM = ["data.stream={block: 500, head: 1000}", "data.split=documents", "train.steps=2"]
COMMANDS: dict[str, list[str]] = {
    "data prepare": ["data", "prepare", "IN", "--out", "out", "--tokenizer", "bytes"],
    "data prepare --processes": [
        "data", "prepare", "IN", "--out", "out", "--tokenizer", "bpe:300", "--processes", "2",
    ],
    "data prepare --part": [
        "data", "prepare", "IN", "--out", "out", "--tokenizer", "bytes", "--part", "1/1",
    ],
    "data prepare skip": [
        "data", "prepare", "IN", "text.txt", "--out", "out", "--tokenizer", "bytes",
        "--on-error", "skip", "--ledger", "ledger.txt",
    ],
    "data clean": ["data", "clean", "auto", "IN", "--out", "out"],
    "data dedup": ["data", "dedup", "IN", "--out", "out.jsonl", "--report", "report.jsonl"],
    "data blend": ["data", "blend", "text.txt", "IN", "--out", "out", "--tokenizer", "bytes"],
    "data blend main": [
        "data", "blend", "IN", "text.txt", "--out", "out", "--tokenizer", "bytes",
    ],
    "data join": ["data", "join", "IN", "--out", "out"],
    "data merge": ["data", "merge", "IN", "store", "--out", "out"],
    "data verify": ["data", "verify", "IN"],
    "tokenizer train": ["tokenizer", "train", "IN", "--out", "out.json", "--vocab-size", "300"],
    "train data.store": ["train", "tiny.yaml", "data.store=[IN, store]", "--name", "new"],
    "train data.source": ["train", "tiny.yaml", "data.source=IN", "--name", "new"],
    "train data.stream": ["train", "tiny.yaml", "data.source=IN", *STREAM, "--name", "new"],
}  # fmt: skip


def _giant(size: int) -> Callable[[Path], None]:
    """Return what writes a single line of words."""

    def write(path: Path) -> None:
        block = b"word after word " * (1 << 16)
        with path.open("wb") as file:
            for begin in range(0, size, len(block)):
                file.write(block[: size - begin])

    return write


def _state(path: Path) -> str:
    return digest(path) if path.is_file() and not path.is_symlink() else str(path.is_symlink())


def _limited(words: list[str], folder: Path, seconds: int) -> Child:
    """Run a command that may use no more than so much memory and processor time."""
    had = resource.getrlimit(resource.RLIMIT_DATA), resource.getrlimit(resource.RLIMIT_CPU)
    # Its own memory: of a store's files, which are mapped, none needs to be in it.
    mapped = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    spent = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_DATA, (mapped + MEMORY, had[0][1]))
    used = int(spent.ru_utime + spent.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, had[1][1]))
    try:
        return alone(words, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, had[0])
        resource.setrlimit(resource.RLIMIT_CPU, had[1])


def _told(said: str) -> bool:
    """Whether a refusal is about all of the text."""
    return any(words in said for words in ("holds no text", "tokens of the other text are"))


def _round(words: list[str], base: Path, name: str, seconds: int, say: bool) -> tuple[str, str]:
    """Run a command on one bad input; return what happened, and what was wrong."""
    bad, inputs = base / name, {each: _state(each) for each in base.glob("*.*")}
    before = set(base.rglob("*"))
    child = _limited([word.replace("IN", name) for word in words], base, seconds)
    said = child.said
    child.output.unlink()
    if say:
        print(f"--- {name}: exit {child.code}\n{said}", flush=True)
    made = [each for each in base.rglob("*") if each not in before and "cache" not in each.parts]
    problem = ""
    if child.code not in (0, REFUSED):
        problem = f"exit {child.code}: {said[-600:]}"
    elif "Traceback" in said:
        problem = f"a traceback: {said[-600:]}"
    elif child.code == REFUSED and name.partition(".")[0] not in said and not _told(said):
        problem = f"it does not say where: {said[-300:]}"
    elif child.code == REFUSED and (half := [str(each) for each in made if each.exists()]):
        problem = f"left behind: {half[:3]}"
    elif any(_state(each) != state for each, state in inputs.items()):
        problem = "an input was changed"
    elif hidden := leftovers(base):
        problem = f"hidden: {hidden}"
    _sweep(base, made)
    assert os.path.lexists(bad) or name.startswith("missing")
    return ("used" if child.code == 0 else "refused in words"), problem


def _sweep(base: Path, made: list[Path]) -> None:
    for each in sorted(made, key=lambda path: len(path.parts), reverse=True):
        each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands that were asked for on every bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*COMMANDS, []], help="all, if none is named")
    parser.add_argument("--inputs", nargs="*", help="only these", default=None)
    parser.add_argument("--say", action="store_true", help="print what each command said")
    parser.add_argument("--giant", type=int, default=0, metavar="BYTES")
    options = parser.parse_args(arguments)
    inputs = dict(INPUTS)
    if options.giant:
        inputs = {f"giant.{kind}": _giant(options.giant) for kind in ("txt", "jsonl", "csv")}
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="bad-") as place:
        base = workshop(Path(place) / "base")
        prepared = ["data", "prepare", "text.txt", "--out", "store", "--tokenizer", "bytes"]
        assert alone(prepared, base).code == 0
        (base / "runs").mkdir()
        for each in base.glob("said-*"):
            each.unlink()
        for name in options.inputs or inputs:
            inputs[name](base / name)
        for command in options.names or COMMANDS:
            for name in options.inputs or inputs:
                seconds = 60 + options.giant // (1 << 20)
                outcome, problem = _round(COMMANDS[command], base, name, seconds, options.say)
                tally.add(f"{command} {name}", outcome, problem)
            tally.close(command)
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
