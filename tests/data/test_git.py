"""A repository's tracked files at a commit."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from coterie.data import Sources
from coterie.foundation.errors import DataError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    path = tmp_path / "repo"
    (path / "src").mkdir(parents=True)
    (path / "src" / "a.py").write_bytes(b"print(1)\r\n")
    (path / "ünï.md").write_text("# Hi")
    (path / "picture.png").write_bytes(b"\x89PNG\x00\xff")
    (path / "empty").write_text("")
    (path / "link.py").symlink_to("src/a.py")
    git(path, "init", "-q")
    git(path, "add", "-A")
    git(path, "commit", "-qm", "one")
    (path / "untracked.py").write_text("no")
    (path / "src" / "a.py").write_text("changed, not committed")
    return path


def git(path, *words):
    subprocess.run(["git", "-C", path, *words], check=True)


def read(name):
    sources = Sources([name])
    return {d.name.rpartition(":")[2]: (d.text, d.language) for d in sources}, sources


def test_tracked_files_at_a_commit_are_read_and_nothing_else(repository, tmp_path):
    found, sources = read(f"git:{repository}")
    assert found == {"src/a.py": ("print(1)\n", "Python"), "ünï.md": ("# Hi", "Markdown")}
    assert "1 tracked files passed over" in sources.report.notes[0]
    first = sources.fingerprint()
    git(repository, "commit", "-qam", "two")
    git(repository, "clone", "-q", "--bare", str(repository), str(tmp_path / "bare.git"))
    later, again = read(f"git:{tmp_path / 'bare.git'}")
    assert later["src/a.py"][0] == "changed, not committed"
    assert again.fingerprint() != first
    assert read(f"git:{tmp_path / 'bare.git'}@HEAD~1")[0] == found


def test_what_is_no_repository_is_refused(tmp_path, repository):
    for name in (tmp_path / "gone", f"{repository}@nosuch"):
        with pytest.raises(DataError, match="cannot be read as a git repository"):
            Sources([f"git:{name}"])
