"""Files and folders that are whole or not there, and that replace nothing unasked.

What is being written lies beside its target in a folder `.marfast-….part`, which nobody else may
enter and which its process keeps locked: one that isn't locked is a dead process's.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and no leftovers are found
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".marfast-", ".part"

_LOCK = PREFIX + "{}.lock"
_NO_REPLACE, _EXCHANGE = 1, 2  # RENAME_NOREPLACE and RENAME_EXCHANGE of Linux's renameat2
_AT_FDCWD = -100
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # to this kernel or file system


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A name to write a file or a folder to, whose place `path` takes if nothing is raised.

    That is one step: at no moment is there neither the old nor the new, where the system can
    exchange folders (Linux; elsewhere the next `sweep` puts back what a dead process moved aside).
    A link is replaced, not followed. Raises FileExistsError where something is there by then,
    unless forced.
    """
    with _folder(path.parent), _workplace(path.parent) as work:
        new = work / "new" / path.name
        yield new
        _flush(new)
        if not force:
            _publish(new, path)
        elif new.is_dir() and os.path.lexists(path):
            _exchange(new, path, work / "old" / path.name)
        else:
            os.replace(new, path)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, which takes moments.

    Python runs the handlers of signals in its main thread; elsewhere there is nothing to do.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *signalled: pressed.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Nobody else has claimed `path` meanwhile; BlockingIOError if somebody has, another OSError if
    no such name can be written."""
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    lock = path.with_name(_LOCK.format(name))
    held = None
    with _folder(path.parent):
        try:
            with uninterrupted():
                held = _open_locked(lock)
            with contextlib.suppress(FileNotFoundError):
                path.lstat()
            yield
        finally:
            with uninterrupted():
                if held is not None:
                    with contextlib.suppress(OSError):
                        lock.unlink()
                    os.close(held)


def _open_locked(lock: Path) -> int:
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            _lock(held)
            if os.path.samestat(os.fstat(held), lock.lstat()):
                return held
        except FileNotFoundError:
            pass  # whoever had it has removed it in between
        except BlockingIOError:
            os.close(held)
            raise BlockingIOError(errno.EBUSY, "another process is writing it") from None
        os.close(held)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder and those above; what was made goes again if anything is raised."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # as a file
            raise NotADirectoryError(errno.ENOTDIR, "Not a folder", error.filename) from None
        yield
    except BaseException:
        with uninterrupted(), contextlib.suppress(OSError):  # not empty
            for folder in missing:
                folder.rmdir()
        raise


def sweep(folder: Path) -> None:
    """Take away what dead processes left in a folder; what they had moved aside goes back."""
    if fcntl is None:
        return
    for left in [*folder.glob(f"{PREFIX}*{SUFFIX}"), *folder.glob(_LOCK.format("?" * 16))]:
        with contextlib.suppress(OSError):
            held = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(held)
                if found.st_uid != os.geteuid():
                    continue
                if stat.S_ISDIR(found.st_mode):
                    _clear(left)
                elif left.match(_LOCK.format("*")) and not found.st_size:
                    left.unlink()
            finally:
                os.close(held)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A locked folder in a folder, with one for what is new and one for what was moved aside."""
    work = held = None
    try:
        with uninterrupted():
            work, held = _make_workplace(folder)
        yield work
    finally:
        with uninterrupted():
            if work is not None:
                _clear(work)
            if held is not None:
                os.close(held)


def _make_workplace(folder: Path) -> tuple[Path, int | None]:
    """And the descriptor that keeps it locked."""
    while True:
        work = Path(tempfile.mkdtemp(SUFFIX, PREFIX, folder))
        held = None
        try:
            if fcntl is not None:
                held = os.open(work, os.O_RDONLY)
                _lock(held)
            (work / "new").mkdir()
            (work / "old").mkdir()
            return work, held
        except (FileNotFoundError, BlockingIOError):  # swept before it was locked
            if held is not None:
                os.close(held)


def _lock(descriptor: int) -> None:
    """Until it is closed; BlockingIOError if another has it. Not every file system can."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass


def _clear(work: Path) -> None:
    """Remove a workplace; nobody else's folder of such a name."""
    if not work.is_dir() or not {entry.name for entry in work.iterdir()} <= {"new", "old"}:
        return
    for old in (work / "old").glob("*"):
        target = work.parent / old.name
        if not os.path.lexists(target):
            old.rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _flush(path: Path) -> None:
    """To the disk: a rename must not get there before what is renamed."""
    for file in [*path.rglob("*")] if path.is_dir() else [path]:
        if file.is_file():
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())


def _publish(new: Path, path: Path) -> None:
    """Rename where nothing is; FileExistsError otherwise."""
    if _renameat2(new, path, _NO_REPLACE):
        return
    if not new.is_dir():
        try:
            os.link(new, path)
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without links
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    os.rename(new, path)


def _exchange(new: Path, path: Path, aside: Path) -> None:
    """A folder takes the place of what is there, which is then at one of the other two."""
    if not _renameat2(new, path, _EXCHANGE):
        os.rename(path, aside)
        os.rename(new, path)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Linux's rename with flags; False where the system or the file system doesn't have it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError):
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(target))


def cache_folder() -> Path:
    """Where the platform has a user's programs keep what can be made anew; it may not be there yet.

    RuntimeError where the user has no home.
    """
    if sys.platform == "win32":
        told = os.environ.get("LOCALAPPDATA", "")
        usual = ("AppData", "Local")
    elif sys.platform == "darwin":
        told, usual = "", ("Library", "Caches")
    else:
        told, usual = os.environ.get("XDG_CACHE_HOME", ""), (".cache",)
    base = Path(told) if os.path.isabs(told) else Path.home().joinpath(*usual)
    return base / "marfast"
