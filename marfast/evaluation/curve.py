"""The speed–quality curve: settings, what an image costs with each, and what it is worth.

All settings take turns, round by round: each round, every setting makes the same images (classes
and seeds), which are timed and then judged. So others' load on the machine and the luck of a seed
fall on all alike, and all figures are of equally many images.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from marfast.bench.results import Row
from marfast.bench.timing import percentiles
from marfast.bench.timing import seconds as timed
from marfast.checkpoints import Settings
from marfast.evaluation.evaluating import Court
from marfast.evaluation.measures import Figure
from marfast.evaluation.run import Run
from marfast.evaluation.sampling import Made
from marfast.evaluation.sums import Judged
from marfast.generation import Pipeline
from marfast.pixels import Pixels

LEAST_ROUNDS = 3
"""For an error, and for a median."""
NUM_ITER = (1 / 3, 2 / 3, 1, 2)
STEPS = (0.4, 1)
"""What is varied unless told otherwise: shares of the model's own iterations and steps."""

Progress = Callable[[str, int, int], None]
"""Called with (setting, done, of) in a round."""


@dataclass
class Point:
    """One setting, and what the rounds have found of it."""

    source: Made
    seconds: list[float] = field(default_factory=list)
    """An image, of each round."""
    parts: list[Judged] = field(default_factory=list)

    @property
    def varied(self) -> dict[str, Any]:
        run = self.source.run
        return asdict(run.settings) | {"dtype": run.dtype}


def usual_variation(settings: Settings, seq_len: int) -> dict[str, list[Any]]:
    """Iterations and, where they are a number, steps around the model's own; both dtypes."""
    iterations = sorted(
        {min(seq_len, max(1, round(share * settings.num_iter))) for share in NUM_ITER}
    )
    found: dict[str, list[Any]] = {"num_iter": iterations}
    if isinstance(settings.steps, int):
        found["steps"] = sorted({max(2, round(share * settings.steps)) for share in STEPS})
    return found | {"dtype": ["float32", "bfloat16"]}


def combinations(variation: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, as changes to settings; "dtype" among them where it is varied."""
    return [
        dict(zip(variation, values, strict=True))
        for values in itertools.product(*variation.values())
    ]


def points_of(
    pipelines: Mapping[str, Pipeline],
    settings: Sequence[tuple[str, Settings]],
    batch: int,
    seed: int,
) -> list[Point]:
    """Of a model in each dtype, and each (dtype, settings); a round makes `batch` images."""
    runs = {
        dtype: Run.of(pipeline, batch, seed=seed, kind="none", shard=batch)
        for dtype, pipeline in pipelines.items()
    }
    return [
        Point(Made(pipelines[dtype], replace(runs[dtype], settings=chosen)))
        for dtype, chosen in settings
    ]


def measure(
    points: Sequence[Point],
    court: Court,
    *,
    minutes: float | None = None,
    rounds: int | None = None,
    progress: Progress | None = None,
) -> Iterator[list[Row]]:
    """Rows of all points after each round from the third on; as many rounds as fit into the
    minutes, or so many."""
    start, longest = time.perf_counter(), 0.0
    for done in itertools.count():
        before = time.perf_counter()
        late = minutes is not None and before - start + longest > 60 * minutes
        if done >= LEAST_ROUNDS and (late or (rounds is not None and done >= rounds)):
            return
        for i in range(len(points)):
            point = points[(i + done) % len(points)]
            if progress:
                progress(f"round {done + 1}", i, len(points))
            _round(point, court, done)
        longest = max(longest, time.perf_counter() - before)
        if done + 1 >= LEAST_ROUNDS:
            yield rows(points, court)


def _round(point: Point, court: Court, number: int) -> None:
    """The images of round r are those of the ids from r·B on."""
    run, made = point.source.run, []
    size = run.shard
    grown = Made(point.source.pipeline, replace(run, count=size * (number + 1)))

    def make() -> None:
        made.append(grown.pixels(number))

    point.seconds.append(timed(make) / size)
    ids = grown.run.shards[number]
    pixels: Pixels = made[0]
    point.parts.append(Judged.of(court.judge(pixels), ids, grown.run.labels(ids)))


def rows(points: Sequence[Point], court: Court) -> list[Row]:
    """A row for each point, the fastest first; `front` says whether no other is both faster and
    nearer to real images."""
    found = []
    for point in points:
        figures: dict[str, Figure] = court.figures(point.parts)
        found.append(
            point.varied
            | {
                "images": point.source.run.shard * len(point.parts),
                "seconds_an_image_p20_p50_p80": percentiles(np.array(point.seconds)),
                "figures": {name: figure._asdict() for name, figure in figures.items()},
            }
        )
    found.sort(key=seconds_of)
    distance = court.protocol.distance
    best = float("inf")
    for row in found:
        value = row["figures"][distance]["value"]
        row["front"] = value < best
        best = min(best, value)
    return found


def seconds_of(row: Row) -> float:
    """The median of an image."""
    return float(row["seconds_an_image_p20_p50_p80"][1])
