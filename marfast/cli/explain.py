"""`marfast info --explain`: the backend of each op of a generation, and why."""

from collections.abc import Iterator
from dataclasses import asdict

import torch

from marfast.checkpoints.presets import MAR_PRESETS
from marfast.cli.console import echo, print_json, print_table
from marfast.cli.errors import check_device, check_environment, reported_as
from marfast.generation import Pipeline
from marfast.generation.explain import Choice, explain
from marfast.generation.load import load
from marfast.model import FastMAR


def print_choices(
    model: str, preset: str | None, batch: int, dtype: str | None, device: str, as_json: bool
) -> None:
    """What `--explain` shows."""
    check_environment()
    place = check_device(device)
    with reported_as("--model"):
        pipeline = _model(model, preset, None if dtype is None else getattr(torch, dtype))
    choices = explain(pipeline.to(place).model, batch, pipeline.settings)
    if as_json:
        print_json([asdict(choice) for choice in choices])
    else:
        columns = ("op", "backend", "calls", "smallest", "largest", "why not another")
        print_table(columns, map(_cells, choices))
        if measured := [row for choice in choices for row in _measured(choice)]:
            echo()
            print_table(("op", "largest", "tried", "off by", "ms a call", "why not"), measured)


def _model(name: str, preset: str | None, dtype: torch.dtype | None) -> Pipeline:
    if name not in MAR_PRESETS:
        return load(name, preset, dtype=dtype)
    known = MAR_PRESETS[name]
    module = known.architecture.build(steps=str(known.settings.steps)).to_empty(device="cpu")
    for parameter in module.parameters():  # any values do
        torch.nn.init.zeros_(parameter)
    return Pipeline(FastMAR(module, dtype), known.settings)


def _cells(choice: Choice) -> tuple[object, ...]:
    ends = (choice.shapes[0], choice.shapes[-1]) if choice.shapes else ("", "")
    reasons = "; ".join(f"{name}: {reason}" for name, reason in choice.others.items())
    return choice.op, choice.backend, choice.calls, *ends, reasons


def _measured(choice: Choice) -> Iterator[tuple[object, ...]]:
    """The candidates, the fastest first."""

    def place(label: str) -> tuple[bool, float]:
        trial = choice.tried[label]
        return bool(trial.wrong), trial.seconds or 0.0

    for label in sorted(choice.tried, key=place):
        trial = choice.tried[label]
        error = "" if trial.error is None else f"{trial.error:.1e}"
        time = "" if trial.seconds is None else f"{1e3 * trial.seconds:.4g}"
        more = "more than " * trial.at_least
        yield choice.op, choice.shapes[-1], label, error, more + time, trial.wrong
