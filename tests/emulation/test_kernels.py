"""The kernels of csrc/cuda in the emulator, and what it sees when their synchronisation fails."""

from pathlib import Path

import pytest

from . import build, mutation

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())


FILES = {
    "run_kernels": ("grid_barrier.cuh", "linear_fp32.cuh", "linear_mma.cuh"),
    "run_attention": ("attention.cuh",),
    "run_ddpm_sample": ("ddpm_sample.cuh", "grid_barrier.cuh"),
}
"""The programs, and whose synchronisation each reaches."""


@pytest.fixture(scope="module", params=FILES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("kernels") / request.param
    return build.link_program(build.HERE / f"{request.param}.cpp", to)


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random", "late"])
def test_right_under_every_schedule(program: Path, schedule: str) -> None:
    done = build.run(program, "check", schedule)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 25
    assert [line for line in lines if not line.endswith("\tok")] == []


@pytest.mark.parametrize("schedule", ["forward", "random"])
def test_operands_may_lie_anyhow(schedule: str, tmp_path: Path) -> None:
    """Each at an odd address, or in rows an odd number apart, or farther than 32 bits count."""
    to = build.link_program(build.HERE / "run_layouts.cpp", tmp_path / "run_layouts")
    done = build.run(to, "check", schedule)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 200
    assert [line for line in lines if not line.endswith("\tok")] == []


REDUNDANT: dict[tuple[str, str], str] = {}
"""Synchronisation, by operation and file, that may be dropped unseen, and why it is there."""


def test_every_synchronisation_dropped_or_weakened_is_caught(program: Path) -> None:
    done = build.run(program, "faults")
    assert done.returncode == 0, done.stderr
    sites = [line.split("\t") for line in done.stdout.splitlines()]
    reached = {(site[0], Path(site[1]).name) for site in sites}
    assert {file for _, file in reached} == {*FILES[program.name]}
    assert {"bar_sync", "cp_async_commit_group", "cp_async_wait_group"} <= {op for op, _ in reached}
    missed = [s for s in sites if s[4] == "ok" and (s[0], Path(s[1]).name) not in REDUNDANT]
    assert missed == []


def test_mutants_are_other_numbers_operators_and_orders() -> None:
    assert set(mutation.changes("if (i < n - 1) f(x, y);")) == {
        "if (i < n - 2) f(x, y);",
        "if (i < n - 0) f(x, y);",
        "if (i <= n - 1) f(x, y);",
        "if (i < n + 1) f(x, y);",
        "if (n < i - 1) f(x, y);",
        "if (i < n - 1) f(y, x);",
    }
    assert set(mutation.changes("return only ? a[i][0] : b;")) == {
        "return only ? a[i][1] : b;",
        "return only ? b : a[i][0];",
    }
    unchanged = 'static_assert(2 < 3, "1");\n  // 4\n#include <5>\n      "6");\n'
    assert mutation.mutants_of("x.cuh", unchanged) == []


MUTANTS = (
    ("tile.cuh", "r < down ? across", "r <= down ? across"),
    ("linear_fp32.cuh", "% Tiles::kChain == 0", "% (Tiles::kChain - 1) == 0"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "old", "new"), MUTANTS)
def test_a_wrong_tail_or_block_is_noticed(file: str, old: str, new: str, tmp_path: Path) -> None:
    lines = (build.CSRC / "cuda" / file).read_text().splitlines()
    (number,) = (i for i, line in enumerate(lines, 1) if old in line)
    changed = mutation.Mutant(file, number, lines[number - 1].replace(old, new))
    assert mutation.outcome(changed, tmp_path) == "caught"
