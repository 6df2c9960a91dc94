"""The emulator reports what broken kernels do wrong, at its line, and nothing of right ones."""

import re
import shutil
from pathlib import Path

import pytest

from . import build

HERE = Path(__file__).parent
SCHEDULES = ("forward", "reverse", "random", "late")
KERNELS = {file: (HERE / file).read_text() for file in ("kernels.cuh", "grid_kernels.cuh")}

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())


def marked_lines() -> dict[str, dict[tuple[str, int], set[str]]]:
    """By kernel: the kinds that each of its marked lines may be reported with."""
    kernels: dict[str, dict[tuple[str, int], set[str]]] = {}
    name = ""
    for file, source in KERNELS.items():
        for number, line in enumerate(source.splitlines(), 1):
            if found := re.match(r"__global__ void (\w+)", line):
                name = found[1]
                kernels[name] = {}
            if "// report: " in line:
                kernels[name][file, number] = set(line.split("// report: ")[1].split())
    return kernels


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.link_program(
        HERE / "selftest.cpp", tmp_path_factory.mktemp("emulator") / "selftest"
    )


def rows(program: Path, *words: str) -> list[list[str]]:
    done = build.run(program, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("addr2line") is None, reason="no addr2line")
def test_broken_kernels_are_reported_by_kind_and_line_under_every_schedule(program: Path) -> None:
    marked = marked_lines()
    seen = set()
    for name, schedule, found in rows(program):
        seen.add((name, schedule))
        if name.startswith("right_"):
            assert found == "ok", (name, schedule)
            continue
        if name.startswith("late_") and found == "ok":
            assert schedule != "late", name
            continue
        if name.startswith("shared_memory"):
            assert found == (
                "shared_memory: the launch asks for 232449 bytes; a block has 232448 at most"
            )
            continue
        report = re.match(r"(\w+) at .*/(\w+\.cuh):(\d+), block \d+, thread \d+: ", found)
        assert report, (name, schedule, found)
        kind, file, line = report.groups()
        assert kind in marked[name].get((file, int(line)), set()), (name, schedule, found)
    assert seen == {(name, s) for name in marked for s in SCHEDULES}


def test_a_random_schedules_report_names_its_seed(program: Path) -> None:
    found = [row[2] for row in rows(program) if row[:2] == ["race_in_global_memory", "random"]]
    assert [text[-len("seed 1)") :] for text in found] == ["seed 1)", "seed 2)", "seed 3)"]


def test_the_same_on_any_linux(program: Path, tmp_path: Path) -> None:
    """Fibers by ucontext, as where the processor isn't an x86-64."""
    machine = build.build_emulator(tmp_path, "-DMARFAST_UCONTEXT")
    portable = build.link_program(HERE / "selftest.cpp", tmp_path / "selftest", machine=machine)
    assert rows(portable) == rows(program)


REDUNDANT: dict[tuple[str, str], str] = {}
"""Synchronisation, by kernel and operation, that can be dropped unseen, and why it's there."""


def test_every_synchronisation_dropped_or_weakened_is_caught(program: Path) -> None:
    found = rows(program, "faults")
    missed = [row for row in found if row[3] == "ok" and (row[0], row[1]) not in REDUNDANT]
    assert not missed
    sources = [source.splitlines() for source in KERNELS.values()]
    for name, operation, line, _ in found:
        [source] = [lines for lines in sources if any(f"void {name}(" in text for text in lines)]
        assert operation in source[int(line) - 1], (name, operation, line)
    assert {row[1] for row in found} == {
        "atom_add_release_gpu",
        "bar_sync",
        "bar_warp_sync",
        "cp_async_commit_group",
        "cp_async_wait_group",
        "fence_gpu",
        "ld_acquire_gpu",
        "st_release_gpu",
    }
