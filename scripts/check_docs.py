"""Holds README, CONTRIBUTING and docs/ against the code: what they name must exist.

Checked are relative links and their anchors, paths and test ids, calls of `coterie` and `make`,
settings (`key=value`, dotted keys, YAML), `kind`s, Python imports and names, and the README's map.

Run: python scripts/check_docs.py [FILE ...]   (part of `make check`)
"""

from __future__ import annotations

import ast
import glob
import importlib
import re
import shlex
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from cyclopts import CycloptsError, UnknownOptionError

from coterie.cli.verbs import GROUPS, VERBS
from coterie.foundation.errors import UserError, nearest
from coterie.foundation.schema import Shape, shape_of
from coterie.foundation.settings import Settings, kind_of

ROOT = Path(__file__).resolve().parent.parent
_PATH = re.compile(r"(?<![\w/.-])(?:coterie|tests|scripts|benchmarks|docs)/[\w./{},*-]*[\w/}*]")
_KEY = re.compile(r"[a-z_]\w*(?:\.\w+)*")
_FILES = (".py", ".md", ".json", ".jsonl", ".yaml", ".safetensors", ".html", ".jinja", ".gguf")
# Words of a call that are no settings, by verb; where the keys of the others begin.
_OWN_WORDS = {"model extend": {"context", "method"}}
_SCALED = {"train", "demo", "presets show", "model show"}
_FOREIGN = {"my_lab", "tokenizer_config", "DeepseekV3Attention", "PyTorch", "SmolLM", "GeGLU"}


class Span(NamedTuple):
    """A piece of code in a page: where it stands, what it says, `inline` or a block's language."""

    line: int
    text: str
    language: str


def spans(text: str) -> Iterator[Span]:
    """Yield the code of a page: blocks as a whole, inline spans each."""
    block: list[str] | None = None
    language, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            if block is None:
                block, language, start = [], line.strip("` \n"), number + 1
            else:
                yield Span(start, textwrap.dedent("\n".join(block)), language)
                block = None
        elif block is not None:
            block.append(line)
        else:
            for found in re.finditer(r"`([^`]+)`", line):
                yield Span(number, found[1].replace("\\|", "|"), "inline")


def close(name: str, known: Iterable[str]) -> str:
    """Return the nearest valid name as a phrase."""
    guess, _, choices = nearest(name, known).partition("choices: ")
    return guess.strip() or f"choices: {choices}"


# --- links and paths ------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            if not path.exists():
                around = path.parent.iterdir() if path.parent.is_dir() else ()
                yield number, f"no file {target}; {close(path.name, (p.name for p in around))}"
            elif anchor and anchor not in anchors(path):
                yield number, f"no heading #{anchor} in {path.name}; {close(anchor, anchors(path))}"


def expanded(pattern: str) -> list[str]:
    """Return a pattern's alternatives in braces, each written out."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    rest = (pattern[: found.start()], pattern[found.end() :])
    return [each for part in found[1].split(",") for each in expanded(part.join(rest))]


def paths(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if "://" in line:
            continue
        for found in _PATH.finditer(line):
            for name in expanded(found[0]):
                if not re.search(r"[A-Z]{3}", name) and not glob.glob(str(ROOT / name)):
                    yield number, f"no file {name}; {close(name, tree())}"
            test = re.match(r"::(\w+)", line[found.end() :])
            if test and not re.search(rf"(def|class) {test[1]}\b", (ROOT / found[0]).read_text()):
                known = re.findall(r"def (test_\w+)", (ROOT / found[0]).read_text())
                yield number, f"no test {test[1]} in {found[0]}; {close(test[1], known)}"


def flags(text: str) -> Iterator[tuple[int, str]]:
    """Check the flags of calls of our scripts and benchmarks."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"((?:scripts|benchmarks)/\w+\.py)([^`#|]*)", line):
            script = ROOT / found[1]
            content = script.read_text(encoding="utf-8") if script.exists() else ""
            known = re.findall(r"--[a-z][\w-]*", content)
            for flag in re.findall(r"--[a-z][\w-]*", found[2]) if content else ():
                if flag not in known and not re.search(
                    rf"\b{flag[2:].replace('-', '_')}\b", content
                ):
                    yield number, f"{found[1]} has no {flag}; {close(flag, known)}"


@cache
def tree() -> frozenset[str]:
    """Return the paths of all files and folders, folders ending in a slash."""
    rooms = ("coterie", "tests", "scripts", "benchmarks", "docs")
    found = [path for room in rooms for path in (ROOT / room).rglob("*")]
    names = (f"{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}" for path in found)
    return frozenset(name for name in names if "__pycache__" not in name)


def map_of(span: Span) -> Iterator[tuple[int, str]]:
    """Check the README's map of the tree: each entry exists, and each room has an entry."""
    above: list[tuple[int, str]] = []
    named = set()
    for number, line in enumerate(span.text.splitlines(), span.line):
        found = re.match(r"( *)([\w.]+/?)(?:  |$)", line)
        if not found:
            continue
        above = [each for each in above if each[0] < len(found[1])]
        path = "".join(name for _, name in above) + found[2]
        above.append((len(found[1]), found[2]))
        named.add(path)
        if not (ROOT / path).exists():
            yield number, f"no {path}; {close(path, tree())}"
    rooms = {f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("coterie/*/__init__.py")}
    for room in sorted(rooms - named):
        yield span.line, f"the map lacks {room}"


# --- settings -------------------------------------------------------------------------------------


def classes_of(shape: Shape) -> list[type[Settings]]:
    if shape.union is not None:
        return list(shape.union.members.values())
    return [] if shape.model is None else [shape.model]


def step(shape: Shape, part: str) -> list[Shape]:
    """Return what may stand one part further, whichever kinds were chosen."""
    inner = shape.entry if shape.entry is not None else shape.item
    if inner is not None and (shape.entry is not None or part.isdecimal()):
        return [shape_of(inner)]
    fields = [cls.model_fields[part] for cls in classes_of(shape) if part in cls.model_fields]
    found = [shape_of(each.annotation, tuple(each.metadata)) for each in fields]
    if part == "kind" and any("kind" in cls.model_fields for cls in classes_of(shape)):
        found.append(Shape(text=True))
    return found


@cache
def root() -> type[Settings]:
    return importlib.import_module("coterie.train.settings").RunSettings


@cache
def choice() -> type[Settings]:
    """Return what is chosen where a model is loaded."""
    return importlib.import_module("coterie.quantise.formats").WeightChoice


@cache
def every_class() -> tuple[type[Settings], ...]:
    """Return every class of settings that a run may hold."""
    found: dict[type[Settings], None] = {}
    waiting = [Shape(model=root()), Shape(model=choice())]
    while waiting:
        shape = waiting.pop()
        waiting += [shape_of(each) for each in (shape.item, shape.entry) if each is not None]
        for cls in classes_of(shape):
            if cls not in found:
                found[cls] = None
                fields = cls.model_fields.values()
                waiting += [shape_of(each.annotation, tuple(each.metadata)) for each in fields]
    return tuple(found)


def starts(first: str) -> list[Shape]:
    """Return where a key may begin: at the root, or anywhere if the root does not know it."""
    classes = (root(),) if first in root().model_fields else every_class()
    return [Shape(model=cls) for cls in classes]


def key_problem(key: str, begin: list[Shape] | None = None) -> str | None:
    """Return what is wrong with a dotted key, or `None`."""
    parts = key.split(".")
    shapes = starts(parts[0]) if begin is None else begin
    for depth, part in enumerate(parts):
        further = [inner for shape in shapes for inner in step(shape, part)]
        if not further:
            known = {name for shape in shapes for cls in classes_of(shape)
                     for name in cls.model_fields}  # fmt: skip
            where = ".".join(parts[:depth])
            return f"no setting {key}; below “{where}”: {close(part, known)}"
        shapes = further
    return None


def tree_problems(value: Any, shapes: list[Shape] | None = None) -> Iterator[str]:
    """Yield what is wrong with settings written as YAML."""
    if isinstance(value, list):
        inner = [shape_of(each.item) for each in shapes or () if each.item is not None]
        for each in value:
            yield from tree_problems(each, inner or None)
    if not isinstance(value, dict):
        return
    kind = value.get("kind")
    if shapes is None:
        shapes = starts(str(next(iter(value), "")))
    if isinstance(kind, str) and ":" not in kind:
        known = {kind_of(cls): cls for shape in shapes for cls in classes_of(shape)
                 if "kind" in cls.model_fields}  # fmt: skip
        members = [cls for shape in shapes for cls in classes_of(shape)
                   if "kind" in cls.model_fields and kind_of(cls) == kind]  # fmt: skip
        if not members:
            yield f"no kind {kind} here; {close(kind, known)}"
            return
        shapes = [Shape(model=cls) for cls in members]
    for key, inner in value.items():
        problem = key_problem(str(key), shapes)
        if problem is not None:
            yield problem
        else:
            yield from tree_problems(inner, [s for shape in shapes for s in step(shape, str(key))])


def assignments(words: Iterable[str], verb: str) -> Iterator[str]:
    """Yield what is wrong with the `key=value` words of a call."""
    begin = [Shape(model=root())]
    if verb in ("generate", "visualise", "verse score"):
        begin = step(begin[0], "sample")
    begin.append(Shape(model=choice()))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _KEY.fullmatch(key) or key in _OWN_WORDS.get(verb, ()):
            continue
        if key in ("scale", "mode") and verb in _SCALED:
            continue
        problem = key_problem(key, begin)
        if problem:
            yield problem
        elif value.startswith("{"):
            shapes = begin
            for part in key.split("."):
                shapes = [inner for shape in shapes for inner in step(shape, part)]
            yield from tree_problems(yaml.safe_load(value), shapes)


# --- calls and names ------------------------------------------------------------------------------


def call_problems(call: str) -> Iterator[str]:
    """Yield what is wrong with a call of `coterie`: its verb, its flags, its settings."""
    app = importlib.import_module("coterie.cli.app")
    words: list[str] = []
    try:
        words = shlex.split(call, comments=True)[1:]
        words = words[: next((n for n, word in enumerate(words) if word in {"|", "&&", ">"}), None)]
        app._check_verb(words)
        app.build_app(words).parse_args(words, exit_on_error=False, print_error=False)
    except UserError as error:
        yield error.message
        return
    except UnknownOptionError as error:
        yield app._refusal(error)[0]
        return
    except (CycloptsError, ValueError):
        pass  # an incomplete call names its verb alone
    length = 2 if words[:1] and words[0] in GROUPS else 1
    verb = " ".join(words[:length])
    if verb in VERBS or length == 2:
        yield from assignments(words[length:], verb)


@cache
def source() -> frozenset[str]:
    """Return every word of the project's Python."""
    rooms = ("coterie", "tests", "benchmarks", "scripts")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    files = [path for path in files if "check_docs" not in path.name]
    return frozenset(w for path in files for w in re.findall(r"\w+", path.read_text("utf-8")))


def import_problem(module: str, name: str | None = None) -> str | None:
    """Return why a public name cannot be imported, or `None`."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        above, _, last = module.rpartition(".")
        if not above or name is not None:
            return f"no module {module}"
        return import_problem(above, last)
    if name is None or name == "*" or hasattr(found, name):
        return None
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return f"no {name} in {module}; {close(name, dir(found))}"
    return None


def _validated(node: ast.AST) -> Iterator[str]:
    """Yield what is wrong with a mapping given to `Class.model_validate`."""
    classes = {cls.__name__: cls for cls in every_class()}
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".model_validate"):
        cls = classes.get(ast.unparse(node.func).removesuffix(".model_validate"))
        if cls is not None and isinstance(node.args[0], ast.Dict):
            yield from tree_problems(ast.literal_eval(node.args[0]), [Shape(model=cls)])


def python_problems(span: Span) -> Iterator[tuple[int, str]]:
    try:
        parsed = ast.parse(span.text)
    except SyntaxError as error:
        yield span.line + (error.lineno or 1) - 1, f"not Python: {error.msg}"
        return
    for node in ast.walk(parsed):
        yield from ((span.line, each) for each in _validated(node))
        wanted: list[tuple[str, str | None]] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            wanted = [(node.module, each.name) for each in node.names]
        elif isinstance(node, ast.Import):
            wanted = [(each.name, None) for each in node.names]
        for module, name in wanted:
            problem = import_problem(module, name) if module.startswith("coterie") else None
            if problem:
                yield span.line + typing.cast(ast.stmt, node).lineno - 1, problem


@cache
def _attributes() -> frozenset[str]:
    """Return the names that a loaded model, `model` in Python, may have."""
    return frozenset(re.findall(r"\w+", (ROOT / "coterie/api/model.py").read_text("utf-8")))


def inline_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with one inline span, by what it looks like."""
    word = re.sub(r"\(.*\)$|\[.*\]$", "", text, flags=re.DOTALL)
    last = word.rpartition(".")[2]
    if text.startswith("coterie "):
        yield from call_problems(text)
    elif text.startswith("make "):
        yield from target_problems(text)
    elif re.fullmatch(r"coterie(\.\w+)+", word):
        yield from filter(None, [import_problem(word)])
    elif re.fullmatch(r"(?:[a-z_]+: )?\{\w+: .*\}", text) and "…" not in text:
        yield from tree_problems(yaml.safe_load(text))
    elif re.fullmatch(rf"{_KEY.pattern}=[^=\s].*", text) and "." in text.partition("=")[0]:
        yield from filter(None, [key_problem(text.partition("=")[0])])
    elif re.fullmatch(r"(data|tokenizer|model|train|sample)(\.[a-z_]\w*)+", text):
        attribute = text.startswith("model.") and last in _attributes()
        if not attribute and not text.endswith(_FILES):
            yield from filter(None, [key_problem(text)])
    elif re.fullmatch(r"(?!.*(?:my_lab|[A-Z]{3}))[a-z_]+/?[\w/]*\.py|[a-z_]+/[\w/]*\w/", text):
        if not any(f"/{name}".endswith(f"/{text}") for name in tree()):
            yield f"no file {text}; {close(text, tree())}"
    elif (re.fullmatch(r"(\w+\.)*([A-Z][a-z]+){2,}\w*", word) or word != text) and (
        re.fullmatch(r"\w{3,}", last) and last not in source() | _FOREIGN
    ):
        yield f"nothing is named {last}; {close(last, source())}"


def target_problems(call: str) -> Iterator[str]:
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in call.split("#")[0].split()[1:]:
        if re.fullmatch(r"[a-z-]+", word) and word not in known:
            yield f"no target {word} in the Makefile; {close(word, known)}"


def block_problems(span: Span) -> Iterator[tuple[int, str]]:
    if span.language == "python":
        yield from python_problems(span)
    elif span.language == "yaml":
        yield from ((span.line, each) for each in tree_problems(yaml.safe_load(span.text)))
    elif span.text.startswith("coterie/\n"):
        yield from map_of(span)
    else:
        joined = re.sub(r"\\\n *", "", span.text)
        for number, line in enumerate(joined.splitlines(), span.line):
            call = re.sub(r"^.*\| *(?=coterie )", "", line)
            if line.startswith("$ "):
                continue  # a transcript, perhaps of a mistake
            if call.startswith("coterie "):
                yield from ((number, each) for each in call_problems(call))
            elif call.startswith("make "):
                yield from ((number, each) for each in target_problems(call))


def problems(page: Path) -> Iterator[str]:
    """Yield what a page says that is not so: file, line, and the nearest valid name."""
    text = page.read_text(encoding="utf-8")
    found = [*links(page, text), *paths(text), *flags(text)]
    for span in spans(text):
        if span.language == "inline":
            found += [(span.line, each) for each in inline_problems(span.text)]
        else:
            found += block_problems(span)
    shown = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    yield from (f"{shown}:{line}: {what}" for line, what in sorted(set(found)))


def main(arguments: list[str]) -> int:
    """Print every problem; exit 1 when there is one."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
    pages = [Path(each).resolve() for each in arguments] or pages
    found = [problem for page in pages for problem in problems(page)]
    print("\n".join(found) if found else f"docs: {len(pages)} pages fit the code")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
