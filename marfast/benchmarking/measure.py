"""Rows of a benchmark: who takes how long, beside whom, how near to the limit and how exact.

Whoever differs from the float32 reference by more than its dtype allows is refused before the case
is timed.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast import ops
from marfast.checkpoints import Architecture, Settings
from marfast.reference import SimpleMLPAdaLN

from . import heads, images
from .floors import Floors, measure
from .memory import working_mb
from .results import Row
from .timing import AT_MOST_BUSY, Run, Timing, in_turn, joined, percentiles

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HEAD_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}  # of samples of order 1, over a whole loop
IMAGE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # of the reference's largest value
TIMES_PYTORCH = 4
"""Where PyTorch itself is far off, an image's tokens may be so many times as far: two or three
sampling steps amplify rounding by the thousand, until bfloat16 no longer determines a token."""
ATTEMPTS = 3  # while others take more than AT_MOST_BUSY
SITTINGS = 3
"""Of a head's rounds, each with a copy of the weights of its own: where those lie in memory makes a
difference of some per cent, which would stay for a whole process."""


class WrongResult(RuntimeError):
    """Somebody's result is too far from the reference's: this case was not timed."""


@dataclass(frozen=True)
class Options:
    """What a benchmark may vary."""

    rounds: int = 9
    device: str = "cpu"
    compile: bool = False  # torch.compile, too
    original: Any = None  # verification's Implementation of a checkout


def quiet_timing(runs: Mapping[str, Run], rounds: int) -> Timing:
    """The least disturbed of up to ATTEMPTS timings."""
    best: Timing | None = None
    for _ in range(ATTEMPTS):
        timing = in_turn(runs, rounds)
        if best is None or timing.busy < best.busy:
            best = timing
        if best.busy <= AT_MOST_BUSY:
            break
    assert best is not None
    return best


def measure_head(
    name: str, net: SimpleMLPAdaLN, rows: int, steps: int, options: Options, floors: Floors
) -> list[Row]:
    """The head's sampling loop for R rows (guided: two a token): a row for each contender."""
    workload = heads.head_workload(net, rows, steps)
    steady: dict[str, Callable[[], Tensor]] = {}
    if options.compile:
        steady["compile"] = heads.compiled(workload)
    if options.original is not None:
        steady["original"] = heads.original(workload, options.original)
    ours = {
        f"{backend} {dtype}": (backend, dtype)
        for dtype in DTYPES
        for backend in heads.backends(workload, DTYPES[dtype])
    }

    def contenders(workload: heads.HeadWorkload) -> dict[str, Callable[[], Tensor]]:
        own = {who: heads.ours(workload, b, DTYPES[d]) for who, (b, d) in ours.items()}
        others = {"eager": heads.eager(workload), "autocast": heads.warm_autocast(workload)}
        return {**others, **steady, **own}

    with torch.no_grad():
        runs = contenders(workload)
        expected = runs["eager"]()
        difference = {
            who: float((run() - expected).abs().max())
            for who, run in runs.items()
            if who != "original"  # it draws noise of its own
        }
        for who, (_, dtype) in ours.items():
            # few steps amplify rounding, PyTorch's as well
            pytorchs = TIMES_PYTORCH * difference["autocast"] if dtype == "bfloat16" else 0.0
            allowed = max(HEAD_TOLERANCE[dtype], pytorchs)
            _require(f"{name}, R = {rows}, {who}", difference[who], allowed)
        memory = {who: working_mb(run, expected.device) for who, run in runs.items()}
        timings = []
        for _ in range(SITTINGS):
            runs = contenders(heads.head_workload(copy.deepcopy(net), rows, steps))
            timings.append(quiet_timing(runs, -(-options.rounds // SITTINGS)))
        timing = joined(timings)
    torch.clear_autocast_cache()
    tokens = len(expected)
    baselines = [who for who in runs if who not in ours]
    found: list[Row] = []
    for who in runs:
        dtype = ours[who][1] if who in ours else "bfloat16" if who == "autocast" else "float32"
        size = workload.weights_a_step * DTYPES[dtype].itemsize
        floor = 1e3 * floors.seconds(workload.flops_a_step(rows), size, dtype)
        p20, p50, p80 = timing.percentiles(who, 1e3 / steps)
        found.append(
            {
                "workload": name,
                "rows": rows,
                "steps": steps,
                "who": who,
                "dtype": dtype,
                "rounds": len(timing.seconds[who]),
                "ms_a_step_p20_p50_p80": [p20, p50, p80],
                "tokens_a_second": round(1e3 * tokens / (p50 * steps), 3),
                "working_mb": memory[who],
                "ratio_to": {other: timing.ratio(other, who) for other in baselines},
                "floor_ms_a_step": round(floor, 4),
                "share_of_floor": round(floor / p50, 3),
                "difference": difference.get(who),
                "others_took": timing.busy,
            }
        )
    return found


def head_floors(net: SimpleMLPAdaLN, device: str) -> Floors:
    """The limits that matter to this head."""
    weights = heads.head_workload(net, 2, 2).weights_a_step
    return measure([2 * weights, 4 * weights], device)


@dataclass(frozen=True)
class ImageWorkload:
    """A model and what its users ask of it."""

    name: str
    module: Any
    architecture: Architecture
    settings: Settings  # with the K and S to measure
    batch: int
    timed: int  # of the K iterations


def measure_images(what: ImageWorkload, options: Options, peaks: dict[str, float]) -> list[Row]:
    """Whole images by phase: a row for each contender. peaks: flops a second, by dtype."""
    whole = images.Eager(what.module, nullcontext)
    kind = torch.device(options.device).type
    contenders: dict[str, Any] = {
        "eager": whole,
        "autocast": images.Eager(what.module, partial(torch.autocast, kind, torch.bfloat16)),
    }
    steps = int(what.settings.steps)
    if options.compile:
        contenders["compile"] = images.Eager(images.with_compiled_blocks(what.module), nullcontext)
    if options.original is not None:
        module = images.original_module(what.module, what.architecture, options.original, steps)
        contenders["original"] = images.Original(module.to(options.device), nullcontext)
    ours = {f"marfast {dtype}": dtype for dtype in DTYPES}
    for who, dtype in ours.items():
        half = None if dtype == "float32" else DTYPES[dtype]
        contenders[who] = images.Ours(what.module, half)

    count = what.settings.num_iter
    stride = max(1, count // what.timed)
    timed = range(stride // 2, count, stride)
    totals: dict[str, np.ndarray[Any, Any]] = {}
    phases: dict[str, dict[str, float]] = {who: {} for who in contenders}
    worst: dict[str, float] = dict.fromkeys(ours, 0.0)
    busy, flops, memory = 0.0, 0.0, dict[str, float | None]()
    torch.autocast_increment_nesting()  # so that leaving a context keeps the cast weights
    with torch.no_grad():
        for k in timed:
            share = count / len(timed)
            iteration = images.Iteration(what.module, what.settings, steps, what.batch, k)
            flops += iteration.transformer_flops() * share
            runs = {who: contender.prepare(iteration) for who, contender in contenders.items()}
            eager = runs["eager"]
            expected = eager.head()
            for who, dtype in ours.items():
                z, sampled = _results(eager, contenders[who], iteration)
                case = f"{what.name}, K = {count}, {who}"
                _require(f"{case}, transformers", _off(z, eager.z), IMAGE_TOLERANCE[dtype])
                off, allowed = _off(sampled, expected), IMAGE_TOLERANCE[dtype]
                if not off < allowed:
                    who_too = contenders["eager" if dtype == "float32" else "autocast"]
                    allowed = max(allowed, TIMES_PYTORCH * _rounding(eager, who_too))
                _require(f"{case}, head", off, allowed)
                worst[who] = max(worst[who], off, _off(z, eager.z))
            device = iteration.tokens.device
            if k == timed[0]:
                memory = {who: working_mb(run, device) for who, run in runs.items()}
            collected: dict[str, list[dict[str, float]]] = {who: [] for who in runs}
            recorded: dict[str, Run] = {
                who: partial(_keep, run, collected[who]) for who, run in runs.items()
            }
            timing = in_turn(recorded, options.rounds)
            busy = max(busy, timing.busy)
            for who, found_phases in collected.items():
                measured = found_phases[-options.rounds :]
                for name in measured[0]:
                    median = float(np.median([times[name] for times in measured]))
                    phases[who][name] = phases[who].get(name, 0.0) + median * share
                total = np.array([sum(times.values()) for times in measured]) * share
                totals[who] = totals.get(who, 0) + total
    torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    rows = []
    for who in contenders:
        dtype = ours.get(who, "bfloat16" if who == "autocast" else "float32")
        p20, p50, p80 = percentiles(totals[who], busy)
        transformers = phases[who]["encoder"] + phases[who]["decoder"]
        rows.append(
            {
                "workload": what.name,
                "batch": what.batch,
                "iterations": count,
                "iterations_timed": len(timed),
                "steps": steps,
                "guidance": what.settings.cfg,
                "who": who,
                "dtype": dtype,
                "rounds": options.rounds,
                "seconds_p20_p50_p80": [p20, p50, p80],
                "phases": {name: round(value, 4) for name, value in phases[who].items()},
                "images_a_second": round(what.batch / p50, 5),
                "working_mb": memory[who],
                "ratio_to": {
                    other: round(float(np.median(totals[other] / totals[who])), 3)
                    for other in contenders
                    if other not in ours
                },
                "transformers_share_of_peak": round(flops / transformers / peaks[dtype], 3),
                "difference": worst.get(who),
                "others_took": busy,
            }
        )
    return rows


def _keep(run: Callable[[], dict[str, float]], into: list[dict[str, float]]) -> None:
    into.append(run())


def _results(
    eager: images.EagerRun, ours: images.Ours, iteration: images.Iteration
) -> tuple[Tensor, Tensor]:
    """z, and the head's tokens from the reference's z."""
    with ops.backend(ours.backend):
        ours.model.refresh()
        z = iteration.condition(ours.model).float()
        return z, ours.model.sample_head(*eager.head_arguments)


def _off(result: Tensor, expected: Tensor) -> float:
    """The largest distance, relative to the reference's largest value."""
    return float((result - expected).abs().max() / expected.abs().max())


def _rounding(eager: images.EagerRun, who: images.Eager) -> float:
    """How far PyTorch's own tokens are from those of float64, given the same z."""
    with who.around():
        sampled = eager.head()
    return _off(sampled, eager.head_in_float64())


def _require(case: str, off: float, allowed: float) -> None:
    if not off < allowed:
        raise WrongResult(f"{case}: off by {off:.3g}, {allowed:.3g} is allowed; nothing was timed")


def image_workload(
    name: str,
    module: Any,
    architecture: Architecture,
    settings: Settings,
    batch: int = 1,
    timed: int = 4,
    num_iter: int | None = None,
    steps: int | None = None,
) -> ImageWorkload:
    """The settings as they are, or with another K and S; `timed` of the K iterations are timed."""
    chosen = settings.replace(architecture.seq_len, num_iter=num_iter, steps=steps)
    count = chosen.steps if isinstance(chosen.steps, int) else None
    if count is None:
        raise ValueError(f"steps: {chosen.steps!r}; benchmarks take a number of steps")
    clip = replace(chosen, clip_denoised=module.diffloss.clip_denoised)
    return ImageWorkload(name, module, architecture, clip, batch, min(timed, chosen.num_iter))
