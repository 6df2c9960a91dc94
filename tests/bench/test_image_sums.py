"""What is timed stands for all calls, in every round; floors are of each call."""

from collections import defaultdict

import numpy as np
import pytest

from marfast.bench.floors import Floors
from marfast.bench.image_differences import worst
from marfast.bench.image_sums import Least, Taken
from marfast.bench.images import Phases


def test_each_run_stands_for_several_calls() -> None:
    """Of three rounds the warm-up is none."""
    runs: dict[str, int] = defaultdict(int)

    def run(who: str) -> Phases:
        runs[who] += 1
        return {"head": float(runs[who]), "host": 1.0}

    taken = Taken(("eager", "marfast float32"), rounds=3)
    told: list[str] = []
    for calls in (2.0, 0.5):
        runs.clear()
        taken.add({who: lambda who=who: run(who) for who in taken.totals}, calls, told.append)
    for who in ("eager", "marfast float32"):
        np.testing.assert_array_equal(taken.totals[who], 2.5 * np.array([3.0, 4.0, 5.0]))
        assert taken.phases[who] == {"head": 2.5 * 3, "host": 2.5}
    assert "eager, warming up" in told


def test_a_floor_is_of_each_call_in_its_dtype() -> None:
    """A call of the head is bound by reading here, one of the decoder by arithmetic."""
    least = Least(Floors({"float32": 100.0, "bfloat16": 200.0}, {1: 40.0}, 0.0))
    least.add("head", 100.0, weights=100, calls=3)
    least.add("vae", 1000.0, weights=1, dtype="float32")
    assert least.seconds["float32"] == pytest.approx({"head": 3 * 10.0, "vae": 10.0})
    assert least.seconds["bfloat16"] == pytest.approx({"head": 3 * 5.0, "vae": 10.0})
    assert least.share_of_peak(("head",), 6.0, "bfloat16") == pytest.approx(300 / 200 / 6)


def test_the_worst_of_several_is_told_of() -> None:
    first, second = {"a": (0.1, 1.0), "b": (0.3, 2.0)}, {"a": (0.2, 0.5), "b": (0.1, 0.5)}
    assert worst(first, {}) == first
    assert worst(second, first) == {"a": (0.2, 1.0), "b": (0.3, 2.0)}
