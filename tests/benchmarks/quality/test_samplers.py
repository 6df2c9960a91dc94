"""What the study of samplers calls near, and from how many steps on."""

from typing import Any

from benchmarks.studies.quality.samplers import BASE, by_sampler, fewest_steps, is_near, wanted


def row(steps: int, accuracy: float, distance: float, **more: Any) -> dict[str, Any]:
    measured = {"steps": steps, "accuracy": accuracy, "frechet_distance": distance}
    return {"sampler": "ddpm", "eta": 0.0, "n": 100} | measured | more


BEST = row(100, 0.97, 30.0)


def test_near_is_a_point_of_accuracy_and_a_tenth_of_the_distance() -> None:
    assert is_near(BEST, BEST)
    assert is_near(row(9, 0.961, 32.9), BEST)
    assert is_near(row(9, 0.99, 20.0), BEST)
    assert not is_near(row(9, 0.959, 30.0), BEST)
    assert not is_near(row(9, 0.97, 33.1), BEST)


def test_the_fewest_steps_are_those_from_which_on_all_are_near() -> None:
    near, far = (0.97, 30.0), (0.5, 90.0)
    rows = [row(5, *near), row(10, *far), row(25, *near), row(50, *near)]
    assert fewest_steps(rows, BEST) == 25
    assert fewest_steps([row(50, *far)], BEST) is None


def test_rows_of_the_most_images_count() -> None:
    rows = [BEST, row(10, 0.9, 40.0, n=500), row(10, 0.9, 40.0, n=500, sampler="ddim", eta=1.0)]
    found = by_sampler(rows)
    assert {name: len(of_sampler) for name, of_sampler in found.items()} == {
        "ddpm": 1,
        "ddim, η = 1": 1,
    }


def test_only_ddpm_takes_all_its_steps() -> None:
    assert [settings for settings in wanted() if settings.steps == BASE.steps] == [BASE]
    assert len(set(wanted())) == len(wanted())
