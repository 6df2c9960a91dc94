"""How quality follows the number of steps, for each sampler, at the embedded model's settings.

    python -m benchmarks.studies.quality.samplers --images 2000

Rows are kept in benchmarks/results/quality-samplers.json and never measured again, so an
interrupted study goes on where it stopped; `tables` and `pictures` write docs/samplers.md's.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import marfast
from benchmarks.studies import RESULTS
from benchmarks.studies.quality.study import Settings, measure
from marfast.bench.results import commit, read_rows, write_rows
from marfast.evaluation.real_images import real_images

Row = dict[str, Any]


@dataclass(frozen=True)
class Sampled(Settings):
    """The study's centre, by another sampler."""

    sampler: str = "ddpm"
    eta: float = 0.0

    @property
    def name(self) -> str:
        """As tables show it."""
        return name_of(self.sampler, self.eta)


def name_of(sampler: str, eta: float) -> str:
    return f"{sampler}, η = {eta:g}" if sampler == "ddim" else sampler


SAMPLERS = (("ddpm", 0.0), ("dpm++2m-sde", 0.0), ("dpm++2m", 0.0), ("ddim", 0.0), ("ddim", 1.0))
STEPS = (100, 10, 25, 5)
"""In the order in which they are measured: all samplers at each, DDPM alone at 100."""

BASE = Sampled(steps=100)
"""What the others are compared with."""


def wanted() -> list[Sampled]:
    rows = [
        Sampled(steps=steps, sampler=sampler, eta=eta)
        for steps in STEPS
        for sampler, eta in SAMPLERS
    ]
    return [row for row in rows if row.steps < BASE.steps or row == BASE]


def key(row: Row | Sampled) -> tuple[Any, ...]:
    values = row if isinstance(row, dict) else vars(row)
    return values["sampler"], values["eta"], values["steps"]


def by_sampler(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of the most images that were measured, by the sampler's name."""
    most = max(row["n"] for row in rows)
    found: dict[str, list[Row]] = {name_of(*sampler): [] for sampler in SAMPLERS}
    for row in rows:
        if row["n"] == most:
            found[name_of(row["sampler"], row["eta"])].append(row)
    return {name: of_sampler for name, of_sampler in found.items() if of_sampler}


def base_of(found: dict[str, list[Row]]) -> Row:
    """DDPM's hundred steps."""
    [base] = [row for row in found[BASE.name] if key(row) == key(BASE)]
    return base


def is_near(row: Row, base: Row) -> bool:
    """Within 1 point of accuracy and 10 % of the Fréchet distance of the base, or better."""
    near = row["frechet_distance"] <= 1.1 * base["frechet_distance"]
    return bool(near and row["accuracy"] >= base["accuracy"] - 0.01)


def fewest_steps(rows: Sequence[Row], base: Row) -> int | None:
    """Of one sampler's rows: the least steps from which on all are near the base."""
    fewest = None
    for row in sorted(rows, key=lambda row: -row["steps"]):
        if not is_near(row, base):
            break
        fewest = row["steps"]
    return fewest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="per row (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "quality-samplers.json")
    chosen = parser.parse_args()
    rows = read_rows(chosen.out)
    done = {(*key(row), row["n"], row["seed"]) for row in rows}
    model, facts = marfast.load("fashion-mnist"), {"commit": commit(), "model": "fashion-mnist"}
    for settings in wanted():
        if (*key(settings), chosen.images, chosen.seed) in done:
            continue
        row = measure(model, settings, chosen.images, chosen.seed)
        rows.append(row)
        real = real_images().accuracy
        write_rows(chosen.out, rows, force=True, **facts, test_accuracy=real)
        print(
            f"{settings.name}, {settings.steps} steps: accuracy {row['accuracy']:.1%}, "
            f"Fréchet {row['frechet_distance']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
