"""Rows of whole images: who takes how long in which phase, beside whom, and how exact."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from marfast.bench import images
from marfast.bench.decoding import TOLERANCE as DECODED
from marfast.bench.decoding import Decoding
from marfast.bench.floors import Floors, measure
from marfast.bench.image_differences import Differences, differences, worst
from marfast.bench.image_sums import Least, Taken
from marfast.bench.measure import DTYPES, Options, cast_weights_kept, verdict
from marfast.bench.memory import working_mb
from marfast.bench.results import Row
from marfast.bench.timing import percentiles
from marfast.checkpoints import Architecture, Settings
from marfast.errors import ArgumentError
from marfast.model import KLTokenizer

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

    @property
    def case(self) -> str:
        """As it is called in what is reported."""
        return f"{self.name}, B = {self.batch}, K = {self.settings.num_iter}"

    @property
    def steps(self) -> int:
        """S: of settings that were `varied`."""
        return int(self.settings.steps)

    def iterations(self) -> range:
        """Those of the K that are timed."""
        stride = max(1, self.settings.num_iter // self.timed)
        return range(stride // 2, self.settings.num_iter, stride)

    @property
    def share(self) -> float:
        """Of all iterations, for how many each that is timed stands."""
        return self.settings.num_iter / len(self.iterations())


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
    taken, least = Taken(contenders, options.rounds), Least(floors)
    found: Differences = {}
    memory: dict[str, float | None] = {}
    with torch.no_grad(), cast_weights_kept():
        for k in what.iterations():
            options.report(f"{what.case}: iteration {k}, comparing results")
            iteration = images.Iteration(what.module, what.settings, what.steps, what.batch, k)
            _add_floors(least, what, iteration)
            runs = {who: contender.prepare(iteration) for who, contender in contenders.items()}
            off = differences(what.case, contenders, OURS, runs["eager"], iteration)
            options.verified(verdict(f"{what.case}, iteration {k}", off))
            found = worst(off, found)
            device = iteration.tokens.device
            memory = memory or {who: working_mb(run, device) for who, run in runs.items()}
            taken.add(runs, what.share, _reporter(options, f"{what.case}: iteration {k}"))
        if what.tokenizer is not None:
            options.report(f"{what.case}: VAE, comparing results")
            decoding = _decoding(what, what.tokenizer, contenders, options)
            # whoever decodes: in float32, as the package does
            least.add("vae", decoding.flops(), decoding.weights(), dtype="float32")
            taken.add(decoding.runs, 1, _reporter(options, f"{what.case}: VAE"))
    return [
        _row(what, who, taken, least, memory[who], found.get(who, (None, None)))
        for who in contenders
    ]


def _reporter(options: Options, what: str) -> Callable[[str], None]:
    return lambda who: options.report(f"{what}, {who}")


def _add_floors(least: Least, what: ImageWorkload, iteration: images.Iteration) -> None:
    weights = _weights(what.module)
    for phase, flops in iteration.flops().items():
        calls = what.steps if phase == "head" else 1
        least.add(phase, flops / calls, weights[phase], what.share * calls)


def _row(
    what: ImageWorkload,
    who: str,
    taken: Taken,
    least: Least,
    memory: float | None,
    difference: tuple[float, float] | tuple[None, None],
) -> Row:
    dtype = OURS.get(who, "bfloat16" if who == "autocast" else "float32")
    p20, p50, p80 = percentiles(taken.totals[who])
    phases = taken.phases[who]
    transformers = phases["encoder"] + phases["decoder"]
    peak = least.share_of_peak(("encoder", "decoder"), transformers, dtype)
    off, allowed = difference
    return {
        "workload": what.name,
        "batch": what.batch,
        "iterations": what.settings.num_iter,
        "iterations_timed": len(what.iterations()),
        "steps": what.steps,
        "guidance": what.settings.cfg,
        "who": who,
        "dtype": dtype,
        "rounds": taken.rounds,
        "seconds_p20_p50_p80": [p20, p50, p80],
        "phases": {name: round(value, 4) for name, value in phases.items()},
        "images_a_second": round(what.batch / p50, 5),
        "working_mb": memory,
        "ratio_to": {
            other: round(float(np.median(seconds / taken.totals[who])), 3)
            for other, seconds in taken.totals.items()
            if other not in OURS
        },
        "transformers_share_of_peak": round(peak, 3),
        "floors": {name: round(value, 5) for name, value in least.seconds[dtype].items()},
        "share_of_floor": {
            name: round(value / phases[name], 3) for name, value in least.seconds[dtype].items()
        },
        "difference": off,
        "difference_allowed": allowed,
        "others_took": taken.busy,
    }


def _contenders(what: ImageWorkload, options: Options) -> dict[str, Any]:
    half = partial(torch.autocast, torch.device(options.device).type, torch.bfloat16)
    found: dict[str, Any] = {
        "eager": images.Eager(what.module, nullcontext),
        "autocast": images.Eager(what.module, half),
    }
    if options.compile:
        found["compile"] = images.Eager(images.with_compiled_blocks(what.module), nullcontext)
    if options.original is not None:
        module = images.original_module(
            what.module, what.architecture, options.original, what.steps
        )
        found["original"] = images.Original(module.to(options.device), nullcontext)
    for who, dtype in OURS.items():
        found[who] = images.Ours(what.module, None if dtype == "float32" else DTYPES[dtype])
    return found


def _decoding(
    what: ImageWorkload, tokenizer: KLTokenizer, contenders: Mapping[str, Any], options: Options
) -> Decoding:
    """Of all contenders; WrongResult if the package's images are too far from the reference's."""
    arounds = {
        who: None if who in OURS else contender.around for who, contender in contenders.items()
    }
    side = what.architecture.img_size // what.architecture.vae_stride
    decoding = Decoding(tokenizer, arounds, what.batch, side)
    found = dict.fromkeys(OURS, (decoding.verify(what.case), DECODED))
    options.verified(verdict(f"{what.case}, VAE", found))
    return decoding
