"""How quality follows the settings of the embedded model: iterations, steps, guidance, temperature.

    python -m benchmarks.studies.quality.study                         # one setting at a time
    python -m benchmarks.studies.quality.study --vary all --num-iter 16,24 --steps 50 \\
        --cfg 1.5,2,2.5 --cfg-schedule linear --temperature 1 --images 10000 --seed 1

Each row: N images, equally many of each class, their accuracy and Fréchet distance, and the cost.
Rows are kept in benchmarks/results/quality-fashion-mnist.json and never measured again, so an
interrupted study goes on where it stopped.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import marfast
from benchmarks.studies import RESULTS
from benchmarks.studies.quality.measure import evaluate_images
from marfast.bench.results import read_rows, write_rows
from marfast.evaluation.real_images import real_images
from marfast.training.fashion_mnist import CLASS_NAMES

BLOCK = 500  # images generated at a time


@dataclass(frozen=True)
class Settings:
    """What `generate` is told, beside labels and seed; the defaults are the study's centre."""

    num_iter: int = 6
    steps: int = 25
    cfg: float = 5.0
    cfg_schedule: str = "linear"
    temperature: float = 0.8


GRID: dict[str, tuple[Any, ...]] = {
    "num_iter": (4, 6, 8, 16, 32),
    "steps": (15, 25, 50),
    "cfg": (1.0, 3.0, 5.0, 7.0),
    "cfg_schedule": ("linear", "constant"),
    "temperature": (0.7, 0.8, 0.9, 1.0),
}


def one_at_a_time(centre: Settings, grid: dict[str, tuple[Any, ...]]) -> Iterator[Settings]:
    """The centre, and each setting of the grid in its place."""
    yield centre
    for name, values in grid.items():
        yield from (replace(centre, **{name: value}) for value in values)


def every_combination(grid: dict[str, tuple[Any, ...]]) -> Iterator[Settings]:
    yield from (Settings(*values) for values in itertools.product(*grid.values()))


def measure(model: Any, settings: Settings, n: int, seed: int) -> dict[str, Any]:
    """A row: the settings, N, the seed, what the images are worth and the CPU time of one.

    Images come in blocks of 500, each with a seed of its own, from ``seed`` on.
    """
    labels = [i % len(CLASS_NAMES) for i in range(n)]
    blocks, start = [], time.process_time()
    for block in range(0, n, BLOCK):
        of_block = labels[block : block + BLOCK]
        block_seed = seed + block // BLOCK
        blocks.append(model.generate(labels=of_block, seed=block_seed, **asdict(settings)))
    seconds = time.process_time() - start
    quality = asdict(evaluate_images(torch.cat(blocks), labels))
    return {**asdict(settings), "seed": seed, **quality, "cpu_seconds_per_image": seconds / n}


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a row the same measurement."""
    return (*(row[name] for name in GRID), row["n"], row["seed"])


def table(rows: list[dict[str, Any]]) -> Table:
    """All rows, most images first, then best Fréchet distance; CPU time is of one image."""
    result = Table(title="fashion-mnist: quality by settings", box=SIMPLE_HEAD)
    for heading in ("N", "iter", "steps", "cfg", "schedule", "temp"):
        result.add_column(heading, justify="right")
    for heading in ("accuracy", "Fréchet", "real's", "CPU s"):
        result.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: (-row["n"], row["frechet_distance"])):
        result.add_row(
            f"{row['n']:,}",
            *(str(row[name]) for name in GRID),
            f"{row['accuracy']:.1%}",
            f"{row['frechet_distance']:.3f}",
            f"{real_images().distance(row['n']):.3f}",
            f"{row['cpu_seconds_per_image']:.3f}",
        )
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fashion-mnist")
    parser.add_argument("--vary", choices=("one", "all"), default="one")
    parser.add_argument("--images", type=int, default=500, help="per row (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "quality-fashion-mnist.json")
    for name, values in GRID.items():
        kind = type(values[0])
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=lambda text, kind=kind: tuple(kind(part) for part in text.split(",")),
            default=values,
            metavar=",".join(map(str, values)),
        )
    return parser.parse_args()


def main() -> None:
    chosen, console = arguments(), Console()
    grid = {name: getattr(chosen, name) for name in GRID}
    centre = Settings()
    wanted = one_at_a_time(centre, grid) if chosen.vary == "one" else every_combination(grid)
    rows = read_rows(chosen.out)
    done = {key(row) for row in rows}
    model = marfast.load(chosen.model)
    for settings in wanted:
        if (*astuple(settings), chosen.images, chosen.seed) in done:
            continue
        row = measure(model, settings, chosen.images, chosen.seed)
        rows.append(row)
        done.add(key(row))
        write_rows(
            chosen.out, rows, force=True, model=chosen.model, test_accuracy=real_images().accuracy
        )
        console.print(
            f"{settings}: accuracy {row['accuracy']:.1%}, Fréchet {row['frechet_distance']:.3f}, "
            f"{row['cpu_seconds_per_image']:.3f} CPU s/image"
        )
    console.print(table(rows))
    console.print(f"Real test images: accuracy {real_images().accuracy:.1%}")


if __name__ == "__main__":
    main()
