"""The plain files of a git repository at a commit: what is tracked, not what lies about."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

from coterie.data.documents import Document
from coterie.data.reading import Reading, Tell
from coterie.data.tables import MAX_ROW, BadRow, Rows
from coterie.foundation.errors import DataError
from coterie.foundation.printable import printable

LANGUAGES = {
    "c": "C", "h": "C", "cc": "C++", "cpp": "C++", "cxx": "C++", "hpp": "C++", "cs": "C#",
    "css": "CSS", "go": "Go", "hs": "Haskell", "html": "HTML", "java": "Java", "jl": "Julia",
    "js": "JavaScript", "json": "JSON", "kt": "Kotlin", "lua": "Lua", "md": "Markdown",
    "ml": "OCaml", "php": "PHP", "pl": "Perl", "py": "Python", "pyi": "Python", "r": "R",
    "rb": "Ruby", "rs": "Rust", "rst": "reStructuredText", "scala": "Scala", "sh": "Shell",
    "sql": "SQL", "swift": "Swift", "tex": "TeX", "toml": "TOML", "ts": "TypeScript",
    "tsx": "TypeScript", "yaml": "YAML", "yml": "YAML", "zig": "Zig",
}  # fmt: skip
_PLAIN = ("100644", "100755")  # neither links nor repositories inside


class GitSource:
    """A repository, bare or with a work tree, at one commit: `git:PATH` or `git:PATH@COMMIT`."""

    def __init__(self, given: str) -> None:
        """Find the commit.

        Raises:
            DataError: there is no git, no repository or no such commit.
        """
        path, _, commit = given.rpartition("@") if "@" in Path(given).name else (given, "", "")
        self._path = Path(path).expanduser()
        self._commit = self._git("rev-parse", "--verify", f"{commit or 'HEAD'}^{{commit}}").strip()
        self.identity = f"git\0{self._git('rev-parse', f'{self._commit}^{{tree}}')}"

    def rows(self, reading: Reading, tell: Tell) -> Rows:
        """Yield the tracked files in order of their paths; those that are no text are left aside.

        Raises:
            DataError: git fails.
        """
        aside = 0
        with self._started("cat-file", "--batch") as git:
            for name, size, blob in self._files():
                place = f"{self._path}@{self._commit[:12]}:{name}"
                if size > MAX_ROW:
                    yield BadRow(place, f"longer than {MAX_ROW:,} bytes")
                    continue
                text = _text(_content(git, blob, size))
                if text is None:
                    aside += 1
                elif text:
                    ending = PurePosixPath(name).suffix.lower().lstrip(".")
                    language = LANGUAGES.get(ending)
                    yield Document(place, text, source=str(self._path), language=language)
            git.communicate()
        if aside:
            tell(f"{aside:,} tracked files passed over, being no UTF-8 text")

    def _files(self) -> list[tuple[str, int, str]]:
        """Return path, bytes and object of each plain file."""
        files = []
        for line in self._git("ls-tree", "-r", "-l", "-z", "--full-tree", self._commit).split("\0"):
            about, _, name = line.partition("\t")
            if about and (parts := about.split())[0] in _PLAIN:
                files.append((printable(name, keep=""), int(parts[3]), parts[2]))
        return files

    def _git(self, *words: str) -> str:
        with self._started(*words) as git:
            told, said = (each.decode("utf-8", "replace") for each in git.communicate())
        if git.returncode:
            why = said.strip().partition("\n")[0]
            raise DataError(f"{self._path} cannot be read as a git repository: {why}.")
        return told

    def _started(self, *words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        try:
            # A repository's own settings must not start programs.
            command = ["git", "-C", str(self._path), "-c", "core.fsmonitor=false", *words]
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise DataError(f"{self._path}: git cannot be started: {error.strerror}.") from error


def _content(git: subprocess.Popen[bytes], blob: str, size: int) -> bytes:
    """Ask a running `cat-file --batch` for an object."""
    assert git.stdin is not None
    assert git.stdout is not None
    git.stdin.write(f"{blob}\n".encode())
    git.stdin.flush()
    head = git.stdout.readline().split()
    content = git.stdout.read(size + 1)
    if head[1:] != [b"blob", b"%d" % size] or len(content) != size + 1:
        raise DataError(f"git does not give the object {blob}, which its tree names.")
    return content[:size]


def _text(content: bytes) -> str | None:
    """Return a file's text, or None where it is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n").replace("\r", "\n")
