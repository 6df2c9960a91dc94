"""A device with a clock of its own and backends planted on it: the CPU, where time passes only when
a backend says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast.ops import choice, self_check, tuning
from marfast.ops.backend import Args, Backend
from marfast.ops.op import Op

CPU = torch.device("cpu")
MACHINE = {"gpu": "simulated", "driver": "1.2", "torch": "2.13", "marfast": "0.1.0"}


class Clock:
    """As `marfast.ops.stopwatch.Stopwatch`."""

    def __init__(self, machine: dict[str, str] = MACHINE) -> None:
        self.told = machine
        self.time = 0.0
        self.timed = 0

    def machine(self) -> dict[str, str]:
        return self.told

    def now(self) -> float:
        return self.time

    def seconds(self, run: Callable[[], object], limit: float) -> float:
        self.timed += 1
        start, runs = self.time, 0
        while runs < 2 or (runs < 10 and self.time < start + limit):
            run()
            runs += 1
        return (self.time - start) / runs


class Planted:
    """A backend of an op, which takes `seconds` for each step, or a call, and changes results."""

    def __init__(
        self,
        op: Op,
        clock: Clock,
        name: str,
        seconds: float,
        change: Callable[[Tensor], Tensor] = lambda y: y,
        variants: dict[str, float] | None = None,
    ) -> None:
        self.runs: list[Args] = []
        self.variants: list[str] = []

        def run(a: Args, variant: str = "") -> Tensor:
            self.runs.append(a)
            self.variants.append(variant)
            took = seconds if variants is None else variants[variant]
            clock.time += took * len(getattr(a, "timesteps", "1"))
            return change(op.plain(*a))

        ways = ("",) if variants is None else tuple(variants)
        self.backend = Backend(
            name, lambda a: (True, ""), run, name != "torch", variants=lambda a: ways
        )


class Device:
    """Processes that run one after another on one simulated GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.file = monkeypatch, folder / "trials.json"
        monkeypatch.setattr(tuning, "is_on", lambda device: True)
        monkeypatch.setattr(self_check, "is_wanted", lambda device: True)
        self.start()

    def start(self, machine: dict[str, str] = MACHINE, budget: float = tuning.BUDGET) -> None:
        self.clock = Clock(machine)
        self.monkeypatch.setattr(self_check, "_answers", {})
        self.tuner = tuning.Tuner(CPU, self.clock, self.file, tuning.Budget(budget))
        self.monkeypatch.setattr(tuning, "_tuners", {CPU: self.tuner})

    def plant(self, op: Op, **backends: Any) -> dict[str, Planted]:
        """In place of the op's own, by name: the seconds each takes, or all that Planted takes."""
        given = {n: b if isinstance(b, dict) else {"seconds": b} for n, b in backends.items()}
        planted = {n: Planted(op, self.clock, n, **options) for n, options in given.items()}
        table = {name: made.backend for name, made in planted.items()}
        self.monkeypatch.setattr(op, "backends", {**table, "reference": op.backends["reference"]})
        return planted


def chosen(op: Op, a: Any = None) -> str:
    return choice.choose(op, op.example_args() if a is None else a).label
