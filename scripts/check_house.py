"""Holds the house rules that no linter knows: sizes, imports that hide inside functions, and tests
that are not where their module is.

Run: python scripts/check_house.py   (part of `make check`)
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 12
# Promises of all variants of a whole floor; those of several floors stand in tests/behaviour.
PROMISES = {
    "tests/cli/test_outputs.py",  # every verb that writes
    "tests/model/test_contract.py",  # every member of every union
    "tests/model/test_property.py",  # any combination of them
    "tests/model/test_unequal_rows.py",  # every attention, position and cache
}


def tracked() -> list[Path]:
    """Return the Python files that belong to the project."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [path for path in map(Path, listed.split()) if path.exists()]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_project(node: ast.AST) -> bool:
    """Whether a statement imports from the package."""
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or (node.module or "").split(".")[0] == "coterie"
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] == "coterie" for name in node.names)
    return False


def mirrors(test: Path) -> bool:
    """Whether a test is at the path of a module or room: `a/test_b.py` of `coterie/a/b.py`.

    Where that is tested in several files, each is named by an aspect: `a/test_b_aspect.py`. A
    room's own test may stand inside it: `a/test_a.py`.
    """
    room = Path("coterie", *test.parts[1:-1])
    words = test.stem.removeprefix("test_").split("_")
    names = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
    found = any((room / f"{name}.py").exists() or (room / name).is_dir() for name in names)
    return found or (room.is_dir() and room.name in names)


def misplaced(test: Path) -> bool:
    """Whether a file of tests is neither a module's nor a promise across modules."""
    if test.parts[0] != "tests" or not test.name.startswith("test_"):
        return False
    promise = test.parts[1] == "behaviour" or str(test) in PROMISES
    return not promise and not mirrors(test)


def problems(path: Path) -> Iterator[str]:
    """Yield what a file breaks, one line each."""
    if misplaced(path):
        yield f"{path}: no such module; a test stands at tests/a/test_b.py for coterie/a/b.py"
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines, the house allows {FILE_LINES}"
    product = path.parts[0] == "coterie"
    tree = ast.parse(text)
    if product and ast.get_docstring(tree) is None and text.strip():
        yield f"{path}: no docstring that says the file's one idea"
    for function in functions(tree):
        where = f"{path}:{function.lineno} {function.name}"
        size = (function.end_lineno or function.lineno) - function.lineno + 1
        if size > FUNCTION_LINES:
            yield f"{where}: {size} lines, the house allows {FUNCTION_LINES}"
        count = len(function.args.args) + len(function.args.kwonlyargs)
        if count > PARAMETERS:
            yield f"{where}: {count} parameters, the house allows {PARAMETERS}"
        if product and "cli" not in path.parts:
            for node in ast.walk(function):
                if imports_project(node):
                    yield f"{path}:{node.lineno} project import inside {function.name}"  # type: ignore[attr-defined]


def untaken(paths: list[Path]) -> Iterator[str]:
    """Yield the names that a room of the package hands on and nobody takes from it.

    Imports are looked for in the text: some stand in strings, as modules from outside.
    """
    pattern = re.compile(r"from (coterie[\w.]*) import (\([^)]*\)|[^\n(]*)")
    taken = {
        (found[1], name)
        for path in paths
        for found in pattern.finditer(path.read_text(encoding="utf-8"))
        for name in re.findall(r"\w+", found[2])
    }
    for path in paths:
        if path.parts[0] != "coterie" or path.name != "__init__.py" or len(path.parts) == 2:
            continue
        tree, room = ast.parse(path.read_text(encoding="utf-8")), ".".join(path.parts[:-1])
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        for node in tree.body:
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                if name.name not in used | {"annotations"} and (room, name.name) not in taken:
                    yield f"{path}: {name.name} is taken from here by nobody"


def main() -> int:
    """Print every problem; exit 1 when there is one."""
    paths = tracked()
    found = [problem for path in paths for problem in problems(path)]
    found += untaken(paths)
    print("\n".join(found) if found else "house rules: kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
