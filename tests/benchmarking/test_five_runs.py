"""Five runs agree where every median lies within every run's percentiles."""

from typing import Any

import pytest

from benchmarks.five_runs import compared


def run(who: str, p20: float, p50: float, p80: float) -> list[dict[str, Any]]:
    case = {"workload": "head-b", "rows": 8, "who": who, "others_took": 0.0}
    return [case | {"ms_a_step_p20_p50_p80": [p20, p50, p80]}]


def test_runs_that_agree() -> None:
    (row,) = compared([run("a", 0.9, 1 + 0.01 * i, 1.1) for i in range(5)])
    assert row["agree"]
    assert row["within"] == row["of"] == 25
    assert row["spread_of_medians"] == pytest.approx(0.04)


def test_one_run_apart_shows() -> None:
    (row,) = compared([*(run("a", 0.9, 1.0, 1.1) for _ in range(4)), run("a", 1.9, 2.0, 2.1)])
    assert not row["agree"]
    assert row["within"] == 25 - 8


def test_runs_of_different_cases_are_a_mistake() -> None:
    with pytest.raises(AssertionError):
        compared([run("a", 1, 1, 1), run("b", 1, 1, 1)])
