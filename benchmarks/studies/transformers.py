"""Where the time of an iteration goes on a CPU: each product of the transformers, what stands round
it, attention, the head, and the rest, beside plain PyTorch.

    python -m benchmarks.studies.transformers    # a minute or two

MAR-B with random weights, one image, K = 64, and the embedded model, 100 images; one iteration of
each, in the middle. Contenders take turns. Arithmetic is that of the matrix products alone, so a
share of the peak below 1 has the rest in it. Each product is timed inside the iteration, and again
without LayerNorm, GELU and residual. Writes benchmarks/results/transformers-<instruction set>.json.
"""

import argparse
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import marfast
from benchmarks.studies import BUILD, RESULTS, instruction_set
from marfast import ops, profiling
from marfast.bench import floors, images, timing
from marfast.bench.results import commit, write_rows
from marfast.checkpoints import get_preset
from marfast.model import block

PARTS = ("qkv", "proj", "fc1", "fc2")
STEPS = 25  # of MAR-B's head, to be quick
Times = dict[str, float]  # seconds, by what took them


def workloads(quick: bool) -> Iterator[tuple[str, images.Iteration]]:
    pipeline = marfast.load("fashion-mnist")
    settings, batch = pipeline.settings, 4 if quick else 100
    steps = int(settings.steps)
    module, k = pipeline.model.module, settings.num_iter // 2
    yield f"fashion-mnist, batch {batch}", images.Iteration(module, settings, steps, batch, k)
    if not quick:
        module = images.random_module("mar_base", STEPS)
        settings = get_preset("mar_base").settings.replace(module.seq_len, num_iter=64, cfg=2.9)
        yield "MAR-B, batch 1", images.Iteration(module, settings, STEPS, 1, 32)


class Recorder:
    """The blocks' ops, timed; products once more as products alone."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(float)
        self.flops: Times = defaultdict(float)
        self._calls = 0

    def _timed(self, part: str, flops: float, run: Callable[[], Tensor]) -> Tensor:
        results: list[Tensor] = []
        self.times[part] += timing.seconds(lambda: results.append(run()))
        self.flops[part] += flops
        return results[0]

    def fused_linear(self, x: Tensor, weight: Tensor, bias: Tensor, **rest: Any) -> Tensor:
        part = PARTS[self._calls % len(PARTS)]
        self._calls += 1
        flops, packed = 2.0 * len(x) * weight.numel(), rest["packed"]
        self._timed(f"{part} alone", flops, lambda: _linear(x, weight, bias, packed=packed))
        return self._timed(part, flops, lambda: _linear(x, weight, bias, **rest))

    def attention(self, qkv: Tensor, queries: Tensor | None = None) -> Tensor:
        batch, length, _, heads, dim = qkv.shape
        wanted = length if queries is None else queries.shape[1]
        flops = 4.0 * batch * length * wanted * heads * dim
        run = ops.attention
        with ops.backend("torch"):
            self._timed("attention by torch", flops, lambda: run(qkv, queries))
        return self._timed("attention", flops, lambda: run(qkv, queries))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        recorded = SimpleNamespace(fused_linear=self.fused_linear, attention=self.attention)
        with mock.patch.object(block, "ops", recorded):
            yield


def _linear(*args: Any, **rest: Any) -> Tensor:
    result: Tensor = ops.fused_linear(*args, **rest)
    return result


def head_flops(iteration: images.Iteration) -> float:
    """Of the sampling loop: what heads.py counts a step, of all steps."""
    net = iteration.module.diffloss.net
    width, depth = net.time_embed.mlp[0].weight.shape[0], len(net.res_blocks)
    rows = iteration.rows() * iteration.batch * (iteration.masked - iteration.left)
    return 2.0 * rows * iteration.steps * (5 * depth + 2) * width**2


@torch.no_grad()
def measure(name: str, iteration: images.Iteration, peak: float, rounds: int) -> dict[str, Any]:
    """One iteration's parts; of all rounds the medians."""
    eager = images.Eager(iteration.module, contextlib.nullcontext).prepare(iteration)
    ours = images.Ours(iteration.module, None).prepare(iteration)
    found: dict[str, list[Times]] = {"eager": [], "ours": [], "parts": []}
    flops: Times = {}

    def parts() -> None:
        recorder = Recorder()
        with recorder.recording(), profiling.timed():
            ours.loop.propose(iteration.k)
        found["parts"].append(recorder.times)
        flops.update(recorder.flops)

    runs = {
        "eager": lambda: found["eager"].append(eager()),
        "ours": lambda: found["ours"].append(ours()),
        "parts": parts,
    }
    busy = timing.in_turn(runs, rounds).busy
    times = {
        who: {part: float(np.median([t[part] for t in of[1:]])) for part in of[0]}
        for who, of in found.items()
    }
    phases = times["ours"]
    transformers = phases["encoder"] + phases["decoder"]
    counted = sum(flops[part] for part in (*PARTS, "attention"))
    own = sum(times["parts"][part] for part in (*PARTS, "attention"))

    def row(part: str, seconds: float, count: float | None = None) -> dict[str, Any]:
        share = None if count is None else round(count / seconds / peak, 3)
        return {"part": part, "ms": round(1e3 * seconds, 3), "share_of_peak": share}

    return {
        "workload": name,
        "iteration": iteration.k,
        "rounds": rounds,
        "others_took": busy,
        "parts": [
            *(row(part, seconds, flops[part]) for part, seconds in times["parts"].items()),
            row("rest of the transformers", max(0.0, transformers - own)),
            row("transformers", transformers, counted),
            row("head", phases["head"], head_flops(iteration)),
            row("host", phases["host"]),
        ],
        "eager": [row(part, seconds) for part, seconds in times["eager"].items()],
        "ratio": round(
            float(np.median([sum(e.values()) / sum(o.values()) for e, o in _pairs(found)])), 3
        ),
    }


def _pairs(found: dict[str, list[Times]]) -> Iterator[tuple[Times, Times]]:
    return zip(found["eager"][1:], found["ours"][1:], strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images and rounds, into build/")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    isa = instruction_set()
    peak = floors.peak(torch.float32)
    rounds = 1 if options.quick else options.rounds
    rows = [measure(*found, peak, rounds) for found in workloads(options.quick)]
    out = (BUILD if options.quick else RESULTS) / f"transformers-{isa}.json"
    write_rows(out, rows, force=True, commit=commit(), isa=isa, peak_flops=peak)
    for row in rows:
        print(f"{row['workload']}: {row['ratio']} times eager's speed", row["others_took"])
        for part in row["parts"]:
            print(f"  {part['part']}: {part['ms']} ms, {part['share_of_peak']} of the peak")
    print(out)


if __name__ == "__main__":
    main()
