"""Fits recover what synthetic times were made of."""

import numpy as np
import pytest

from marfast.bench.fits import fit


def test_a_line_is_recovered_over_decades() -> None:
    x = [2.0**i for i in range(13)]
    found = fit(x, [3 + 0.5 * value for value in x])
    assert (found.intercept, found.slope) == pytest.approx((3, 0.5))
    assert found.rms == pytest.approx(0, abs=1e-9)
    assert 0.9 < found.exponent < 1
    assert found.at(10) == pytest.approx(8)


def test_noise_shows_as_the_residual() -> None:
    x = np.arange(1.0, 400)
    noise = np.random.RandomState(0).normal(1, 0.05, len(x))
    found = fit([*x], [*((2 + 3 * x) * noise)])
    assert found.slope == pytest.approx(3, rel=0.02)
    assert found.rms == pytest.approx(0.05, rel=0.2)
    assert found.worst is not None
    assert found.worst > 2 * 0.05


def test_what_is_no_line_has_a_large_residual_and_its_own_exponent() -> None:
    x = [2.0**i for i in range(10)]
    found = fit(x, [value**2 for value in x])
    assert found.exponent == pytest.approx(2)
    assert found.rms is not None
    assert found.rms > 0.2


def test_two_points_leave_no_residual() -> None:
    found = fit([1.0, 0.5], [10.0, 6.0])
    assert (found.intercept, found.slope) == pytest.approx((2, 8))
    assert found.rms is None
    assert found.worst is None


@pytest.mark.parametrize(
    ("x", "times"), [([1], [1]), ([2, 2], [1, 1]), ([0, 1], [1, 1]), ([1, 2], [1, 2, 3])]
)
def test_too_few_points_are_an_error(x: list[float], times: list[float]) -> None:
    with pytest.raises(ValueError, match="two different x"):
        fit(x, times)
