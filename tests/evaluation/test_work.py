"""Work shared by the file system: each file once, nothing lost, nobody waits for the dead."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from marfast.errors import ArgumentError
from marfast.evaluation.work import Place, complete
from marfast.files import claimed
from tests.limits import HANG

FORK = multiprocessing.get_context("fork")


def files_in(folder: Path, count: int = 12) -> list[Path]:
    return [folder / f"{i:02}" for i in range(count)]


def write(i: int, path: Path) -> None:
    path.write_text(str(i))


def work(folder: Path, place: Place, slow: float = 0.0) -> None:
    """Makes the files, each with a line in a log."""

    def make(i: int, path: Path) -> None:
        with (folder / "log").open("a") as log:
            log.write(f"{i} {place.rank}\n")
        time.sleep(slow)
        write(i, path)

    complete(files_in(folder), make, place)


def join(*processes: multiprocessing.Process) -> None:
    for process in processes:
        process.join(HANG)
        assert process.exitcode is not None


def test_missing_files_are_made_and_others_left(tmp_path: Path) -> None:
    files = files_in(tmp_path, 4)
    files[2].write_text("there")
    told: list[list[int]] = []
    assert complete(files, write, report=told.append) == 3
    assert [file.read_text() for file in files] == ["0", "1", "there", "3"]
    assert told[0] == [0, 1, 3]
    assert told[-1] == []
    assert complete(files, write) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00", "01", "02", "03"]


def test_each_rank_begins_with_its_own_share(tmp_path: Path) -> None:
    order: list[int] = []

    def make(i: int, path: Path) -> None:
        order.append(i)
        write(i, path)

    complete(files_in(tmp_path), make, Place(2, 3))
    assert order == [*range(8, 12), *range(8)]


def test_processes_make_each_file_once(tmp_path: Path) -> None:
    processes = [
        FORK.Process(target=work, args=(tmp_path, Place(rank, 3), 0.01)) for rank in range(3)
    ]
    for process in processes:
        process.start()
    join(*processes)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    made = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(i) for i, _ in made) == [*range(12)]
    assert [file.read_text() for file in files_in(tmp_path)] == [str(i) for i in range(12)]


def test_the_work_of_a_killed_process_is_done_by_others(tmp_path: Path) -> None:
    victim = FORK.Process(target=work, args=(tmp_path, Place(0, 2), HANG))
    victim.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    other = FORK.Process(target=work, args=(tmp_path, Place(1, 2)))
    other.start()
    while len([file for file in files_in(tmp_path) if file.exists()]) < 11:
        time.sleep(0.01)
    assert other.is_alive()  # it waits for the file that the first is making
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    join(victim, other)
    assert other.exitcode == 0
    assert [file.read_text() for file in files_in(tmp_path)] == [str(i) for i in range(12)]
    assert len([*tmp_path.iterdir()]) == 13  # the log, and nothing of the dead


def test_what_fails_leaves_nothing_and_ends_it(tmp_path: Path) -> None:
    def make(i: int, path: Path) -> None:
        write(i, path)
        if i == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        complete(files_in(tmp_path), make)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00", "01"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """As where a file system has no locks."""

    def make(i: int, path: Path) -> None:
        files_in(tmp_path)[i].write_text("other")
        write(i, path)

    assert complete(files_in(tmp_path, 1), make) == 0
    assert files_in(tmp_path)[0].read_text() == "other"


def test_a_link_to_nothing_is_named_before_anything_is_made_for_it(tmp_path: Path) -> None:
    files = files_in(tmp_path, 2)
    files[0].symlink_to(tmp_path / "nowhere")
    made: list[int] = []
    with pytest.raises(FileExistsError, match=r"link to nothing; remove it: '.*/00'"):
        complete(files, lambda i, path: made.append(i))
    assert made == []
    assert [path.name for path in tmp_path.iterdir()] == ["00"]


def test_a_claimed_file_is_waited_for(tmp_path: Path) -> None:
    [file] = files_in(tmp_path, 1)
    waiting = FORK.Process(target=complete, args=([file], write))
    with claimed(file):
        waiting.start()
        time.sleep(0.1)
        assert not file.exists()
    join(waiting)
    assert file.read_text() == "0"


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({"RANK": "3"}, Place(0, 1, 0)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, Place(0, 1, 0)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2"}, Place(5, 8, 2)),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"},
            Place(0, 2, 0),
        ),
    ],
)
def test_a_launcher_tells_the_place(environment: dict[str, str], place: Place) -> None:
    assert Place.here(environment) == place


def test_a_launchers_nonsense_is_refused() -> None:
    with pytest.raises(ArgumentError, match="RANK=x, WORLD_SIZE=2"):
        Place.here({"RANK": "x", "WORLD_SIZE": "2"})
