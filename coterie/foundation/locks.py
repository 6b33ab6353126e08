"""Who writes what: a path has one owner while it is written, and the lock dies with its owner.

The lock is the kernel's (`flock`) on a file `.NAME.lock` beside what is written: it ends with the
process, however that ends, and a network file system keeps it at the server for all hosts. The file
says who the owner is. It is removed by its owner before the lock is given back; whoever gets a lock
on a file that is no longer there tries again, so nobody can hold a lock that others do not see.

Where a file system has no locks, a file of the local one is locked instead, and a claim that only
one process can create stands beside what is written, for other hosts to see.
"""

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path

from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable

try:
    import fcntl
except ImportError:  # a system without them: the claim alone must do
    fcntl = None

_UNSUPPORTED = (
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EBADF,  # NFS locks no file that is open for reading only
)
_UNWRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM)
_PATIENCE = 0.5  # seconds: an owner that has just begun has not yet said who it is
_LONGEST = 200  # bytes of a name: there must be room for what is put around it


@dataclass(frozen=True)
class Owner:
    """Who writes a path: the process, its host, when it began (local time) and what it does."""

    pid: int
    host: str
    since: str
    what: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} ({self.what})"

    @classmethod
    def here(cls, what: str) -> "Owner":
        """Return this process as the owner."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%F %T %z"), what)


class OwnedError(UserError):
    """Somebody else is writing there now."""

    def __init__(self, path: Path, owner: Owner | None, hint: str | None = None) -> None:
        self.owner = owner
        who = "another process" if owner is None else str(owner)
        if owner is not None and (owner.pid, owner.host) == (os.getpid(), socket.gethostname()):
            who = f"this very process already, since {owner.since} ({owner.what})"
        super().__init__(
            f"{path} is being written by {who}.",
            hint=hint or "Wait until it has ended, which frees the place; or choose another one.",
        )


@dataclass(frozen=True)
class _Lock:
    """Locked files, by descriptor; each is removed before its lock is given back."""

    files: tuple[tuple[int, Path], ...]
    claim: Path | None = None
    pid: int = field(default_factory=os.getpid)

    def release(self) -> None:
        if self.pid != os.getpid():
            return  # this is a child of the owner: the locks are its parent's
        if self.claim is not None:
            with contextlib.suppress(OSError):
                self.claim.unlink()
        for descriptor, file in self.files:
            with contextlib.suppress(OSError):
                file.unlink()
            _OPEN.discard(descriptor)
            os.close(descriptor)


_OPEN: set[int] = set()
"""Descriptors of the locks of this process."""
_HELD: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""What the present thread owns."""


def _forget() -> None:
    """Close a forked child's copies of the locks, so that they end with their owner."""
    for descriptor in _OPEN:
        with contextlib.suppress(OSError):
            os.close(descriptor)  # to unlock it would unlock the parent's
    _OPEN.clear()
    _HELD.set(frozenset())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def own(
    path: Path | str,
    what: str,
    *,
    wait: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    hint: str | None = None,
) -> Iterator[None]:
    """Own a path inside the block; nobody else, in whichever process, thread or host, does then.

    Args:
        path: what will be written; it need not exist. Links are followed, so that two names of one
            place have one owner.
        what: what is done, in a word or two, for those who are refused: "training".
        wait: wait for the present owner to end instead of being refused.
        notify: told once, in a sentence, who is waited for.
        hint: what those who are refused should do, if there is something better than waiting.

    Raises:
        OwnedError: somebody else owns it; the message names process, host and start.
        UserError: the place cannot be written.
    """
    place = os.path.realpath(path)
    lock = _acquire(Path(place), Path(path), what, wait, notify, hint)
    before = _HELD.get()
    _HELD.set(before | {place})
    try:
        yield
    finally:
        if place in _HELD.get():  # it is not in a forked child, which owns nothing
            _HELD.set(before)
        lock.release()


@contextlib.contextmanager
def own_unless_held(path: Path | str, what: str, hint: str | None = None) -> Iterator[None]:
    """Own a path inside the block, or go on owning it where a block around this one does.

    Raises:
        OwnedError: somebody else owns it.
        UserError: the place cannot be written.
    """
    if held(path):
        yield
    else:
        with own(path, what, hint=hint):
            yield


def held(path: Path | str) -> bool:
    """Return whether a block around this call, in this thread, owns the path."""
    return os.path.realpath(path) in _HELD.get()


def lock_file(descriptor: int) -> bool:
    """Lock an open file until it is closed; return whether it is locked now by this call."""
    try:
        return _flock(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False


def owner_of(path: Path | str) -> Owner | None:
    """Return who writes a path now; None if nobody does."""
    try:
        lock = _try(Path(os.path.realpath(path)), "looking")
    except OSError:
        return None
    if isinstance(lock, _Lock):
        lock.release()
        return None
    return lock.owner


def sibling(path: Path, kind: str) -> Path:
    """Return the hidden name beside a path that is used for a purpose: `.NAME.KIND`."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{kind}")


@dataclass(frozen=True)
class _Refusal:
    """A lock that somebody else has; who it is may not be written down yet."""

    owner: Owner | None
    hint: str | None = None


def _acquire(
    place: Path, named: Path, what: str, wait: bool, notify: Callable[[str], None], hint: str | None
) -> _Lock:
    with explain_disk_errors(str(named)):
        place.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        told = False
        while True:
            found = _try(place, what)
            if isinstance(found, _Lock):
                return found
            patient = time.monotonic() - began < _PATIENCE
            if not patient and not wait:
                raise OwnedError(named, found.owner, found.hint or hint)
            if not patient and not told:
                told = True
                notify(f"Waiting for {found.owner or 'another process'}, which writes {named}.")
            time.sleep(0.02 if patient else 0.1)


def _try(place: Path, what: str) -> _Lock | _Refusal:
    """Try once to lock a place."""
    file = sibling(place, "lock")
    while True:
        try:
            descriptor = _open(file)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            return _elsewhere(place, what, claim=False)
        try:
            locked = _flock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _UNSUPPORTED:
                raise
            return _elsewhere(place, what, claim=True)
        if not locked:
            os.close(descriptor)
            return _Refusal(_read(file))
        if _is_still(file, descriptor):
            return _kept(descriptor, file, what)
        os.close(descriptor)  # its owner removed the file just now: it guards nothing


def _open(file: Path) -> int:
    """Open a lock's file for reading and writing, or as far as it may be opened."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags | os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # somebody else's file: it can be locked all the same
        descriptor = os.open(file, flags | os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EEXIST, "it is no regular file", str(file))
    return descriptor


def _flock(descriptor: int) -> bool:
    """Lock an open file; return false if it is locked already."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether an open file is the one that its name names; opened anew, as NFS needs it."""
    try:
        again = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.fstat(again))
    finally:
        os.close(again)


def _kept(descriptor: int, file: Path, what: str) -> _Lock:
    """Write into a locked file who has it."""
    _OPEN.add(descriptor)
    with contextlib.suppress(OSError):  # it is locked, also where the disk is full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(Owner.here(what))).encode(), 0)
    return _Lock(((descriptor, file),))


def _read(file: Path) -> Owner | None:
    """Return the owner that a file names; None if it names none yet, or one that has ended."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(file.read_bytes()[:4096])
        texts = [printable(found[name], keep="")[:200] for name in ("host", "since", "what")]
        return Owner(int(found["pid"]), *texts)
    return None


def _elsewhere(place: Path, what: str, *, claim: bool) -> _Lock | _Refusal:
    """Lock a file of the local disk instead of one beside the place.

    Args:
        claim: whether to leave a claim beside the place: for other hosts, which cannot see the
            lock. One that names this host and could be locked here is a dead process's.
    """
    key = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
    file = Path(tempfile.gettempdir()) / f"coterie-{key}.lock"
    try:
        descriptor = _open(file)
        locked = _flock(descriptor)
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, *_UNWRITABLE):
            raise
        return _claimed(_Lock(()), place, what)
    if not locked or not _is_still(file, descriptor):
        os.close(descriptor)
        return _Refusal(_read(file))
    lock = _kept(descriptor, file, what)
    return _claimed(lock, place, what) if claim else lock


def _claimed(lock: _Lock, place: Path, what: str) -> _Lock | _Refusal:
    """Add the claim to a lock, or give the lock back to whoever has claimed the place."""
    file = sibling(place, "claim")
    record = json.dumps(asdict(Owner.here(what))).encode()
    for _ in range(2):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            owner = _read(file)
            if lock.files and owner is not None and owner.host == socket.gethostname():
                file.unlink(missing_ok=True)  # its process would have the lock if it lived
                continue
            lock.release()
            hint = (
                f"The file system has no locks, so {file} stands for one. If that process has "
                "ended, remove the file."
            )
            return _Refusal(owner, hint)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(record)
        return _Lock(lock.files, claim=file)
    lock.release()
    return _Refusal(None)
