"""`marfast.warmup(model)`: what a first generation would spend time on, done beforehand; and
`marfast.refresh(model)`, after weights were written where nothing counts it."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from marfast.checkpoints import Settings
from marfast.drop_in.install import installed
from marfast.drop_in.sample_tokens import FastSampleTokens
from marfast.errors import check_whole
from marfast.generation import Pipeline
from marfast.generation.graphs import CaptureFailed, key_of
from marfast.generation.loop import Loop
from marfast.generation.randomness import BatchRandomness, Generators, Randomness
from marfast.generation.sample import graphs_of
from marfast.generation.schedules import schedules_of
from marfast.generation.start import Start
from marfast.model.mar import FastMAR
from marfast.model.schedule import Schedule
from marfast.ops import choice


@dataclass(frozen=True)
class Warmup:
    """What `warmup` prepared."""

    seconds: float
    backends: dict[str, list[str]]
    """Which backends ran each op."""
    graphs: int
    """How many CUDA graphs later generations of this batch and these settings will replay."""
    no_graphs: str
    """Why there are none; empty where there are."""


@torch.no_grad()
def warmup(
    model: Pipeline | nn.Module, batch: int = 1, unknown: int | None = None, **settings: Any
) -> Warmup:
    """Get ready for generations of `batch` images: weights packed, kernels chosen and checked,
    libraries set up and, on a CUDA device, the whole loop captured as graphs.

    model: what `marfast.load` returns, or a MAR that `marfast.accelerate` was given.
    unknown: how many tokens of each image later edits will make anew; None is all, as `generate`.
    settings: as the later `generate` takes them (num_iter, steps, cfg, sampler and the others),
        or `sample_tokens` (num_iter, cfg, cfg_schedule, temperature). Labels, seeds and the
        guidance scale may differ later; a change of the others needs a warmup of its own. A seed
        for each image needs other graphs, which are captured at its second generation.

    Raises TypeError for a model that is neither, ValueError for a setting that is not allowed.
    """
    batch = check_whole("batch", batch, 1)
    start = time.perf_counter()
    forced: AbstractContextManager[Any] = nullcontext()
    if isinstance(model, Pipeline):
        fast = model.model
        chosen = model.settings.replace(fast.module.seq_len, **settings)
        planned, size = partial(schedules_of, fast), model.largest_part
    else:
        method = _sample_tokens_of(model)
        chosen = method.settings_of(model, **settings)
        guided = bool(chosen.cfg != 1.0)
        reason = method.lacks(model) or method.why_not(model, guided, chosen.cfg_schedule, True)
        if reason:
            return Warmup(time.perf_counter() - start, {}, 0, f"its own code runs: {reason}")
        fast, forced = method.model(model), method.backend_in_force()
        planned, size = partial(method.schedules, fast), batch
    start_of = partial(_start, fast, unknown)
    if (some := start_of(1)) is not None:
        chosen = some.settings(chosen, settings.get("num_iter"))
    schedules = planned(chosen)
    generators = Generators.seeded(0, fast.device)
    parts = [range(i, min(i + size, batch)) for i in range(0, batch, size)]
    randomness = [BatchRandomness(generators, batch, rows) for rows in parts]
    with forced, choice.used() as used:
        fast = fast.renewed()
        reason, count = _capture(fast, randomness, chosen, schedules, start_of)
        if reason:
            images = len(parts[0])
            labels = torch.full((images,), -1, device=fast.device)
            Loop(fast, labels, randomness[0], chosen, schedules, start_of(images)).iteration(0)
    return Warmup(
        seconds=time.perf_counter() - start,
        backends={op: sorted(names) for op, names in sorted(used.items())},
        graphs=count,
        no_graphs=reason,
    )


def _start(model: FastMAR, unknown: int | None, images: int) -> Start | None:
    """Some start of an edit of so many tokens."""
    if unknown is None:
        return None
    length = model.module.seq_len
    count = check_whole("unknown", unknown, 1, length, f"allowed are 1 to {length}")
    tokens = torch.zeros(images, length, model.module.token_embed_dim, device=model.device)
    first = torch.arange(length, device="cpu") < count
    return Start(tokens, first.expand(images, -1), count)


def _capture(
    model: FastMAR,
    parts: Sequence[Randomness],
    settings: Settings,
    schedules: Sequence[Schedule],
    start_of: Callable[[int], Start | None],
) -> tuple[str, int]:
    """Why nothing was captured, empty where the graphs are there; and their number."""
    if model.is_hooked:
        return "somebody has hooked into the model, and a replay runs no hook", 0
    if (graphs := graphs_of(model)) is None:
        return f"the model is on {model.device}; graphs are for CUDA devices", 0
    count = 0
    for randomness in parts:
        own = randomness.twin()
        images = own.orders(1).shape[0]
        start = start_of(images)
        key = key_of(model, images, randomness, settings, schedules, start)
        labels = torch.full((images,), -1, device=model.device)
        loop = partial(Loop, model, labels, own, settings, schedules, start)
        try:
            count += (graphs.find(key) or graphs.capture(key, loop)).graphs
        except CaptureFailed as error:
            reason = f"the loop can't be captured: {error}"
            warnings.warn(f"{reason}; generations launch kernel by kernel", stacklevel=3)
            return reason, 0
    return "", count


def refresh(model: Pipeline | nn.Module) -> None:
    """Take the weights of a loaded or accelerated model as they are now.

    Replaced and in-place written weights are seen without it, and on a CPU those written through
    `.data`, too, by some of their values. On other devices nobody waits for values: call this after
    writing through `.data`.
    """
    if isinstance(model, Pipeline):
        model.model.refresh()
        return
    methods = [method for part in model.modules() for method in installed(part).values()]
    if not methods:
        raise TypeError(f"{type(model).__name__} is not accelerated: there is nothing to refresh")
    for method in methods:
        method.refresh()


def _sample_tokens_of(model: Any) -> FastSampleTokens:
    method = installed(model).get(FastSampleTokens.name)
    if not isinstance(method, FastSampleTokens):
        raise TypeError(
            f"model: {type(model).__name__}; allowed are what marfast.load returns and a MAR that "
            "marfast.accelerate was given"
        )
    return method
