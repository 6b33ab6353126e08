"""Everything below a folder: read, or told why not."""

from __future__ import annotations

import os
import socket

import pytest

from coterie.data import Sources
from coterie.data.walk import files_below
from coterie.foundation.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """A folder with one readable file, beside another one with two."""
    folder, beside = tmp_path / "books", tmp_path / "beside"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (beside / "deep").mkdir(parents=True)
    (beside / "b.txt").write_text("b")
    (beside / "deep" / "c.txt").write_text("c")
    return folder


def names(found, folder):
    return [path.relative_to(folder).as_posix() for path in found.files]


def test_linked_folders_and_files_are_read(folder):
    (folder / "link").symlink_to(folder.parent / "beside")
    (folder / "b2.txt").symlink_to(folder.parent / "beside" / "b.txt")
    found = files_below(folder)
    assert names(found, folder) == ["a.txt", "b2.txt", "link/b.txt", "link/deep/c.txt"]
    assert not found.problems
    assert [d.text for d in Sources([folder])] == ["a", "b", "b", "c"]


def test_links_in_circles_end_and_are_told(folder):
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to(folder.parent)  # would lead to all that lies beside
    (folder / "sub").mkdir()
    (folder / "sub" / "z.txt").write_text("z")
    (folder / "again").symlink_to(folder / "sub")
    found = files_below(folder)
    assert names(found, folder) == ["a.txt", "sub/z.txt"]  # by its own name, not by the link's
    assert sorted(path.name for path, _ in found.repeated) == ["again", "self", "up"]
    sources = Sources([folder])
    assert len(list(sources)) == 2
    assert sources.report.skipped == 0  # nothing is lost
    assert any("again: passed over, being the same folder as" in n for n in sources.report.notes)


def test_links_between_folders_are_read_once_each(folder):
    one, two = folder / "one", folder / "two"
    for part, other in ((one, two), (two, one)):
        part.mkdir()
        (part / "t.txt").write_text(part.name)
        for number in range(4):
            (part / f"l{number}").symlink_to(other)
    found = files_below(folder)
    assert names(found, folder) == ["a.txt", "one/t.txt", "two/t.txt"]
    assert len(found.repeated) == 8


def cannot_list(monkeypatch, folder):
    """Make a folder unreadable, for the superuser too."""
    real = os.listdir

    def listdir(path="."):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)


def broken_link(folder, monkeypatch):
    (folder / "odd").symlink_to(folder / "gone")
    return "odd is a link to .*gone, which cannot be read: No such file"


def link_to_itself(folder, monkeypatch):
    (folder / "odd").symlink_to("odd")
    return "odd is a link to odd, which cannot be read: Too many levels"


def pipe(folder, monkeypatch):
    os.mkfifo(folder / "odd")
    return "odd is a pipe, not a file"


def plug(folder, monkeypatch):
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("odd")
    return "odd is a socket, not a file"


def device(folder, monkeypatch):
    (folder / "odd").symlink_to("/dev/null")
    return "odd is a device, not a file"


def unreadable_folder(folder, monkeypatch):
    (folder / "odd").mkdir()
    (folder / "odd" / "x.txt").write_text("x")
    cannot_list(monkeypatch, folder / "odd")
    return "odd cannot be read: Permission denied"


@pytest.mark.parametrize(
    "make", [broken_link, link_to_itself, pipe, plug, device, unreadable_folder]
)
def test_what_cannot_be_read_stops_or_is_listed(folder, monkeypatch, make):
    why = make(folder, monkeypatch)
    with pytest.raises(DataError, match=why) as caught:
        Sources([folder])
    assert "--on-error skip" in caught.value.hint
    sources = Sources([folder], on_error="skip")
    for _ in range(2):  # told by every reading
        assert [document.text for document in sources] == ["a"]
        assert sources.report.skipped == 1
        assert len(sources.report.problems) == 1
        assert "odd" in sources.report.problems[0]


def test_hidden_files_are_told(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / ".env").write_text("x")
    (folder / "empty.txt").write_text("")
    sources = Sources([folder])
    assert [document.text for document in sources] == ["a"]
    assert sources.report.notes == [
        f"{folder / '.env'} and 1 more: passed over, being hidden",
        "1 empty file was passed over",
    ]


def test_a_named_folder_must_be_readable(folder, monkeypatch):
    cannot_list(monkeypatch, folder)
    for rule in ("stop", "skip"):
        with pytest.raises(DataError, match="books cannot be read: Permission denied"):
            Sources([folder], on_error=rule)
    monkeypatch.undo()
    void = folder / "void"
    void.mkdir()
    (void / "l").symlink_to("gone")
    with pytest.raises(DataError, match=r"holds no files that can be read: .*l is a link to gone"):
        Sources([void], on_error="skip")


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="drops privileges")
def test_permissions_are_told_to_an_ordinary_user(tmp_path):
    folder = tmp_path / "books"
    (folder / "shut").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    (folder / "b.txt").chmod(0)
    (folder / "shut").chmod(0)
    for above in [folder, *folder.parents]:
        if above.stat().st_mode & 0o005 != 0o005:
            above.chmod(0o755)
    child = os.fork()
    if not child:  # in the child: 0 if all is as it should be
        code = 1
        try:
            os.setuid(65534)
            sources = Sources([folder], on_error="skip")
            sources.fingerprint()
            texts = [document.text for document in sources]
            told = sorted(sources.report.problems)
            right = texts == ["a"] and ["b.txt" in told[0], "shut" in told[1]] == [True, True]
            code = 0 if right and all("Permission denied" in line for line in told) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
