"""The speed–quality curve: fair rounds, its front, its picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marfast
from marfast.checkpoints import Settings
from marfast.evaluation import PROTOCOLS, Court, Made, curve
from marfast.evaluation.curve import combinations, measure, points_of, usual_variation
from marfast.evaluation.curve_plot import label, plot
from tests.evaluation.runs import RUN


@pytest.fixture(scope="module")
def found() -> tuple[list[curve.Point], list[list[dict[str, Any]]]]:
    """Two settings, three rounds of four images."""
    pipeline = marfast.load("fashion-mnist")
    quick = [pipeline.settings.replace(49, num_iter=1, steps=steps) for steps in (2, 3)]
    points = points_of({"float32": pipeline}, [("float32", how) for how in quick], 4, 0)
    court = Court.of(PROTOCOLS["fashion-mnist"])
    return points, [*measure(points, court, rounds=3)]


def test_rows_have_settings_seconds_and_figures(found: Any) -> None:
    points, told = found
    [rows] = told  # from the third round on
    assert [row["images"] for row in rows] == [12, 12]
    assert {row["steps"] for row in rows} == {2, 3}
    for row in rows:
        low, middle, high = row["seconds_an_image_p20_p50_p80"]
        assert 0 < low <= middle <= high
        assert row["figures"]["Fréchet distance"]["error"] > 0
        assert 0 <= row["figures"]["accuracy"]["value"] <= 1
    assert [len(point.seconds) for point in points] == [3, 3]


def test_all_settings_make_the_same_images_of_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def pixels(self: Made, shard: int, progress: object = None) -> Any:
        ids = self.run.shards[shard]
        asked.append((self.run.settings.steps, tuple(self.run.seeds(ids)), *self.run.labels(ids)))
        return np.zeros((4, 28, 28, 1), np.uint8)

    monkeypatch.setattr(Made, "pixels", pixels)
    runs = [
        replace(RUN, count=4, shard=4, settings=Settings(num_iter=1, steps=steps))
        for steps in (2, 3)
    ]
    points = [curve.Point(Made(None, run)) for run in runs]  # type: ignore[arg-type]
    for _ in measure(points, Court.of(PROTOCOLS["fashion-mnist"]), rounds=3):
        pass
    assert [steps for steps, *_ in asked] == [2, 3, 3, 2, 2, 3]
    assert sorted(seeds for _, seeds, *_ in asked) == [
        seeds for r in range(3) for seeds in [tuple(range(4 * r, 4 * r + 4))] * 2
    ]


def test_time_ends_it_but_not_before_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(curve.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(curve, "_round", lambda *_: None)
    monkeypatch.setattr(curve, "rows", lambda *_: [])
    assert len([*measure([], None, minutes=0)]) == 1  # type: ignore[arg-type]
    assert len([*measure([], None, minutes=14)]) > 3  # type: ignore[arg-type]


def test_the_front_is_whom_nobody_beats_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Judges:
        protocol = PROTOCOLS["fashion-mnist"]

        def figures(self, parts: list[float]) -> dict[str, curve.Figure]:
            return {"Fréchet distance": curve.Figure(parts[0])}

    points = [
        curve.Point(Made(None, RUN), [seconds] * 3, [value])  # type: ignore[arg-type, list-item]
        for seconds, value in ((3, 5.0), (1, 9.0), (2, 9.5), (4, 4.0), (2.5, 5.0))
    ]
    rows = curve.rows(points, Judges())  # type: ignore[arg-type]
    assert [row["seconds_an_image_p20_p50_p80"][1] for row in rows] == [1, 2, 2.5, 3, 4]
    assert [row["front"] for row in rows] == [True, False, True, False, True]


def test_the_usual_variation_is_around_the_models_own() -> None:
    assert usual_variation(Settings(num_iter=6, steps=25), 49) == {
        "num_iter": [2, 4, 6, 12],
        "steps": [10, 25],
        "dtype": ["float32", "bfloat16"],
    }
    small = usual_variation(Settings(num_iter=1, steps="ddim50"), 1)
    assert small == {"num_iter": [1], "dtype": ["float32", "bfloat16"]}


def test_all_combinations_are_measured() -> None:
    assert combinations({"cfg": [1, 2], "steps": [3]}) == [
        {"cfg": 1, "steps": 3},
        {"cfg": 2, "steps": 3},
    ]


def test_the_picture_names_what_is_varied(found: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    [rows] = found[1]
    assert {label(row, rows) for row in rows} == {"S 2", "S 3"}
    facts = {"machine": {}, "model": "fashion-mnist", "distance": "Fréchet distance"}
    file = plot({**facts, "rows": rows}, tmp_path / "curve.png")
    assert Image.open(file).size[0] > 500
