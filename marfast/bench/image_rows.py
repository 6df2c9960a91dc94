"""Rows of whole images: who takes how long in which phase, beside whom, and how exact."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast import ops
from marfast.bench import images
from marfast.bench.decoding import TOLERANCE as DECODED
from marfast.bench.decoding import Decoding
from marfast.bench.floors import Floors, measure
from marfast.bench.measure import (
    DTYPES,
    TIMES_PYTORCH,
    Options,
    cast_weights_kept,
    require,
    verdict,
)
from marfast.bench.memory import working_mb
from marfast.bench.results import Row
from marfast.bench.timing import in_turn, percentiles
from marfast.checkpoints import Architecture, Settings
from marfast.errors import ArgumentError
from marfast.model import KLTokenizer

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # of the reference's largest value
OURS = {f"marfast {dtype}": dtype for dtype in DTYPES}


@dataclass(frozen=True)
class ImageWorkload:
    """A model and what its users ask of it."""

    name: str
    module: Any
    architecture: Architecture
    settings: Settings
    batch: int = 1
    timed: int = 4  # of the K iterations
    tokenizer: KLTokenizer | None = None  # what makes images of its latents

    def varied(self, batch: int | None, num_iter: int | None, steps: int | None) -> "ImageWorkload":
        """With another batch, K and S, where they are given, and x_0 clipped where the module
        clips it."""
        chosen = varied_settings(self.settings, self.architecture, num_iter, steps)
        return replace(
            self,
            settings=replace(chosen, clip_denoised=self.module.diffloss.clip_denoised),
            batch=batch or self.batch,
            timed=min(self.timed, chosen.num_iter),
        )


def varied_settings(
    settings: Settings, architecture: Architecture, num_iter: int | None, steps: int | None
) -> Settings:
    """With another K and S, where they are given; ArgumentError for what can't be measured."""
    chosen = settings.replace(architecture.seq_len, num_iter=num_iter, steps=steps)
    if not isinstance(chosen.steps, int):
        raise ArgumentError("steps", repr(chosen.steps), "benchmarks take a number of steps")
    if chosen.sampler != "ddpm" or chosen.guidance_interval is not None:
        given = f"{chosen.sampler!r}, guided in {chosen.guidance_interval or 'all steps'}"
        raise ArgumentError("sampler", given, "benchmarks take 'ddpm', guided in all steps")
    return chosen


def image_floors(module: Any, device: str) -> Floors:
    """The limits that matter to a model: peaks, and reading the weights of its parts."""
    sizes = {
        size * dtype.itemsize for size in _weights(module).values() for dtype in (*DTYPES.values(),)
    }
    return measure(sorted(sizes), device)


def _weights(module: Any) -> dict[str, int]:
    """How many numbers a phase reads once an iteration, or once a step of the head."""
    parts = {"encoder": module.encoder_blocks, "decoder": module.decoder_blocks}
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    net = module.diffloss.net
    return found | {"head": 2 * net.num_res_blocks * net.model_channels**2}


def measure_images(what: ImageWorkload, options: Options, floors: Floors) -> list[Row]:
    """Whole images by phase: a row for each contender."""
    contenders = _contenders(what, options)
    count, steps = what.settings.num_iter, int(what.settings.steps)
    stride = max(1, count // what.timed)
    timed = range(stride // 2, count, stride)
    share = count / len(timed)  # of all iterations, for which each of these stands
    totals = {who: np.zeros(options.rounds) for who in contenders}
    phases: dict[str, dict[str, float]] = {who: defaultdict(float) for who in contenders}
    worst, allowed = dict.fromkeys(OURS, 0.0), dict[str, float]()
    busy, memory = 0.0, dict[str, float | None]()
    flops: dict[str, float] = defaultdict(float)
    least: dict[str, dict[str, float]] = {dtype: defaultdict(float) for dtype in DTYPES}
    weights = _weights(what.module)

    def told(what_is_done: str) -> None:
        options.report(f"{what.name}, B = {what.batch}, K = {count}: {what_is_done}")

    with torch.no_grad(), cast_weights_kept():
        for k in timed:
            iteration = images.Iteration(what.module, what.settings, steps, what.batch, k)
            told(f"iteration {k}, comparing results")
            for name, done in iteration.flops().items():
                flops[name] += done * share
                calls = steps if name == "head" else 1
                for dtype, kind in DTYPES.items():
                    size = weights[name] * kind.itemsize
                    each = floors.seconds(done / calls, size, dtype)
                    least[dtype][name] += share * calls * each
            runs = {who: contender.prepare(iteration) for who, contender in contenders.items()}
            case = f"{what.name}, K = {count}"
            found = _differences(case, contenders, runs["eager"], iteration)
            for who, (off, limit) in found.items():
                worst[who] = max(worst[who], off)
                allowed[who] = max(allowed.get(who, 0.0), limit)
            options.verified(verdict(f"{case}, iteration {k}", found))
            memory = memory or {
                who: working_mb(run, iteration.tokens.device) for who, run in runs.items()
            }
            disturbed, times = _timed(runs, options.rounds, partial(_of_iteration, told, k))
            busy = max(busy, disturbed)
            for who, measured in times.items():
                for name in measured[0]:
                    phases[who][name] += share * float(np.median([t[name] for t in measured]))
                totals[who] += share * np.array([sum(t.values()) for t in measured])
        if what.tokenizer is not None:
            told("vae, comparing results")
            decoding = _decoding(what, what.tokenizer, contenders, case, options)
            size = decoding.weights() * DTYPES["float32"].itemsize
            least_vae = floors.seconds(decoding.flops(), size)
            for of_phase in least.values():  # whoever decodes: in float32, as the package does
                of_phase["vae"] = least_vae
            timing = in_turn(decoding.runs, options.rounds, lambda who: told(f"vae, {who}"))
            busy = max(busy, timing.busy)
            for who, seconds in timing.seconds.items():
                phases[who]["vae"] = float(np.median(seconds))
                totals[who] += seconds
    rows = []
    for who in contenders:
        dtype = OURS.get(who, "bfloat16" if who == "autocast" else "float32")
        p20, p50, p80 = percentiles(totals[who])
        transformers = phases[who]["encoder"] + phases[who]["decoder"]
        floor = {name: round(value, 5) for name, value in least[dtype].items()}
        peak = (flops["encoder"] + flops["decoder"]) / floors.flops[dtype]
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
                    if other not in OURS
                },
                "transformers_share_of_peak": round(peak / transformers, 3),
                "floors": floor,
                "share_of_floor": {
                    name: round(value / phases[who][name], 3) for name, value in floor.items()
                },
                "difference": worst.get(who),
                "difference_allowed": allowed.get(who),
                "others_took": busy,
            }
        )
    return rows


def _contenders(what: ImageWorkload, options: Options) -> dict[str, Any]:
    half = partial(torch.autocast, torch.device(options.device).type, torch.bfloat16)
    found: dict[str, Any] = {
        "eager": images.Eager(what.module, nullcontext),
        "autocast": images.Eager(what.module, half),
    }
    if options.compile:
        found["compile"] = images.Eager(images.with_compiled_blocks(what.module), nullcontext)
    if options.original is not None:
        steps = int(what.settings.steps)
        module = images.original_module(what.module, what.architecture, options.original, steps)
        found["original"] = images.Original(module.to(options.device), nullcontext)
    for who, dtype in OURS.items():
        found[who] = images.Ours(what.module, None if dtype == "float32" else DTYPES[dtype])
    return found


def _decoding(
    what: ImageWorkload,
    tokenizer: KLTokenizer,
    contenders: Mapping[str, Any],
    case: str,
    options: Options,
) -> Decoding:
    """Of all contenders; WrongResult if the package's images are too far from the reference's."""
    arounds = {
        who: None if who in OURS else contender.around for who, contender in contenders.items()
    }
    side = what.architecture.img_size // what.architecture.vae_stride
    decoding = Decoding(tokenizer, arounds, what.batch, side)
    found = dict.fromkeys(OURS, (decoding.verify(case), DECODED))
    options.verified(verdict(f"{case}, VAE", found))
    return decoding


def _differences(
    case: str, contenders: Mapping[str, Any], eager: images.EagerRun, iteration: images.Iteration
) -> dict[str, tuple[float, float]]:
    """How far each of ours is from the reference in this iteration, and how far it may be;
    WrongResult if it is farther."""
    expected = eager.head()
    found = {}
    for who, dtype in OURS.items():
        z, sampled = _results(eager, contenders[who], iteration)
        off_z, off, allowed = _off(z, eager.z), _off(sampled, expected), TOLERANCE[dtype]
        require(f"{case}, {who}, transformers", off_z, allowed)
        if not off < allowed:
            pytorchs = contenders["eager" if dtype == "float32" else "autocast"]
            allowed = max(allowed, TIMES_PYTORCH * _rounding(eager, pytorchs))
        require(f"{case}, {who}, head", off, allowed)
        found[who] = max(off, off_z), allowed
    return found


def _of_iteration(told: Callable[[str], None], k: int, who: str) -> None:
    told(f"iteration {k}, {who}")


def _timed(
    runs: Mapping[str, Callable[[], images.Phases]], rounds: int, report: Callable[[str], None]
) -> tuple[float, dict[str, list[images.Phases]]]:
    """How busy others were, and the phases of each run in each round."""
    times: dict[str, list[images.Phases]] = {who: [] for who in runs}

    def record(who: str) -> None:
        times[who].append(runs[who]())

    timing = in_turn({who: partial(record, who) for who in runs}, rounds, report)
    return timing.busy, {who: measured[-rounds:] for who, measured in times.items()}


def _results(
    eager: images.EagerRun, ours: images.Ours, iteration: images.Iteration
) -> tuple[Tensor, Tensor]:
    """z, and the head's tokens from the reference's z."""
    with ops.backend(ours.backend):
        ours.model.update()
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
