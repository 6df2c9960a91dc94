"""Files are whole or not there, replace nothing unasked, and dead processes' leftovers go."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from marfast import files
from marfast.files import claimed, replacing, sweep, uninterrupted
from tests.limits import HANG

on_unix = pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")


def write(path: Path, text: str, **options: Any) -> None:
    """A file, or a folder with one in it."""
    with replacing(path, **options) as new:
        if path.suffix:
            new.write_text(text)
        else:
            new.mkdir()
            (new / "a.txt").write_text(text)


def read(path: Path) -> str:
    return (path if path.suffix else path / "a.txt").read_text()


@pytest.fixture(params=["renameat2", "plain"])
def renames(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """With Linux's rename with flags, and without."""
    if request.param == "plain":
        monkeypatch.setattr(files, "_renameat2", lambda *_: False)
    return str(request.param)


@pytest.mark.parametrize("name", ["file.txt", "folder", "new/deep/file.txt"])
def test_what_is_there_is_replaced_only_if_asked(name: str, renames: str, tmp_path: Path) -> None:
    target = tmp_path / name
    write(target, "first")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            write(target, "second")
        assert read(target) == "first"
    write(target, "third", force=True)
    assert read(target) == "third"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("name", ["file.txt", "folder"])
def test_what_appears_meanwhile_stays(name: str, renames: str, tmp_path: Path) -> None:
    target = tmp_path / name
    write_late = replacing(target)
    new = write_late.__enter__()
    new.mkdir() if name == "folder" else new.write_text("ours")
    write(target, "theirs")
    with pytest.raises(FileExistsError):
        write_late.__exit__(None, None, None)
    assert read(target) == "theirs"
    assert os.listdir(tmp_path) == [name]


@on_unix
def test_links_are_replaced_and_not_followed(renames: str, tmp_path: Path) -> None:
    victim, link = tmp_path / "victim.txt", tmp_path / "link.txt"
    victim.write_text("precious")
    for aim in (victim, tmp_path / "nowhere"):
        link.symlink_to(aim)
        with pytest.raises(FileExistsError):
            write(link, "new")
        assert link.is_symlink()
        write(link, "new", force=True)
        assert (victim.read_text(), link.read_text()) == ("precious", "new")
        assert not link.is_symlink()
        link.unlink()


@on_unix
def test_nobody_else_may_enter_the_workplace_and_its_name_is_new_each_time(tmp_path: Path) -> None:
    places = set()
    for _ in range(3):
        with replacing(tmp_path / "a.txt", force=True) as new:
            new.write_text("a")
            place = new.parents[1]
            assert place.parent == tmp_path
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
            places.add(place)
    assert len(places) == 3
    os.umask(before := os.umask(0))
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~before


@pytest.mark.parametrize("name", ["deep/file.txt", "deep/folder"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_nothing_is_left_of_what_fails(name: str, error: Any, tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / name) as new:
            new.write_text("half")
            raise error

    with pytest.raises((KeyboardInterrupt, OSError)):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_a_folder_is_there_at_every_moment(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "0")
    code = "import sys\nwhile True:\n  open(sys.argv[1] + '/a.txt').close()"
    reader = subprocess.Popen([sys.executable, "-c", code, str(target)], stderr=subprocess.PIPE)
    try:
        for i in range(300):
            write(target, str(i), force=True)
        assert reader.poll() is None, reader.stderr and reader.stderr.read()
    finally:
        reader.kill()
        reader.communicate()


@on_unix
def test_a_folder_between_two_renames_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "folder", "old")

    def interrupted(new: Path, path: Path, aside: Path) -> None:
        path.rename(aside)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "folder", "new", force=True)
    assert read(tmp_path / "folder") == "old"
    assert os.listdir(tmp_path) == ["folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from marfast import files
target = Path(sys.argv[1])
def killed(new, path, aside):
    path.rename(aside)
    os.kill(os.getpid(), signal.SIGKILL)
files._exchange = killed
with files.claimed(target), files.replacing(target, force=True) as new:
    new.mkdir()
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@on_unix
@pytest.mark.parametrize("moment", ["writing", "between two renames"])
def test_a_dead_processs_leftovers_go_and_what_it_moved_aside_comes_back(
    moment: str, tmp_path: Path
) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    died = subprocess.run([sys.executable, "-c", KILLED, str(target), moment], timeout=HANG)
    assert died.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) > 1
    sweep(tmp_path)
    assert read(target) == "old"
    assert os.listdir(tmp_path) == ["folder"]


@on_unix
def test_what_is_alive_or_somebodys_own_is_not_swept(tmp_path: Path) -> None:
    own = [tmp_path / ".marfast-notes.part", tmp_path / ".marfast-0123456789abcdef.lock"]
    own[0].mkdir()
    (own[0] / "mine").write_text("precious")
    own[1].write_text("precious")
    (tmp_path / ".marfast-link.part").symlink_to(own[0])
    with claimed(tmp_path / "a.txt"), replacing(tmp_path / "a.txt") as new:
        new.write_text("a")
        sweep(tmp_path)
        assert new.read_text() == "a"
        with pytest.raises(BlockingIOError), claimed(tmp_path / "a.txt"):
            pass
    assert (own[0] / "mine").read_text() == own[1].read_text() == "precious"
    assert len(os.listdir(tmp_path)) == 4


@on_unix
def test_a_claim_is_one_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / ("x" * 200)
    said = pytest.raises(BlockingIOError, match="another process is writing it")
    with claimed(path), claimed(path.with_name("other")), said, claimed(path):
        pass
    with claimed(path):
        pass
    assert os.listdir(path.parent) == []
    with pytest.raises(OSError, match="too long"), claimed(tmp_path / "new" / ("x" * 300)):
        pass
    assert os.listdir(tmp_path) == ["deep"]


@on_unix
def test_a_lock_is_not_followed_through_a_link(tmp_path: Path) -> None:
    with claimed(tmp_path / "a.txt"):
        [lock] = tmp_path.iterdir()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), claimed(tmp_path / "a.txt"):
        pass
    assert not (tmp_path / "victim").exists()


COUNTER = """
import sys
import threading
from pathlib import Path
from marfast.files import claimed
count = Path(sys.argv[1])
done = 0
while done < 50:
    try:
        with claimed(count):
            count.write_text(str(int(count.read_text()) + 1))
            done += 1
    except BlockingIOError:
        pass
"""


@on_unix
def test_claims_of_processes_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path / "count")]
    several = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(HANG) for process in several] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"
    assert os.listdir(tmp_path) == ["count"]


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    seen = []

    def run() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            seen.append("rest of the block")
        seen.append("what follows")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert seen == ["rest of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_comes_before_nobodys_ctrl_c() -> None:
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_that_is_no_function_stays(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone() -> None:
    found = []

    def run() -> None:
        with uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(HANG)
    assert found == [signal.default_int_handler]


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "/home/me/.cache/marfast"),
        ("linux", {"XDG_CACHE_HOME": "/scratch"}, "/scratch/marfast"),
        ("linux", {"XDG_CACHE_HOME": "here"}, "/home/me/.cache/marfast"),
        ("darwin", {"XDG_CACHE_HOME": "/scratch"}, "/home/me/Library/Caches/marfast"),
        ("win32", {}, "/home/me/AppData/Local/marfast"),
        ("win32", {"LOCALAPPDATA": "/data"}, "/data/marfast"),
    ],
)
def test_the_cache_is_where_the_platform_has_it(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", platform)
    assert files.cache_folder() == Path(expected)
