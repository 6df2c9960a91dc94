"""How time grows: of the head with rows R, steps S, width w, depth d and threads; of the loop with
iterations K, batch B and threads.

    python -m benchmarks.studies.scaling             # ten minutes on two cores
    python -m benchmarks.studies.scaling --quick     # two minutes, few points, into build/

Along an axis one thing changes, and all points, in float32 and bfloat16, take turns, round by
round. Beside each median stand p20 and p80, the arithmetic and the bytes of weights that nobody
gets round, and the time that these take at the limits measured in the same run. A line is fitted
along each axis (marfast/bench/fits.py). Writes benchmarks/results/scaling-<instruction
set>.json after each axis; an axis that was finished at this commit on this machine is not run
again.
"""

import argparse
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import marfast
from benchmarks.studies import BUILD, RESULTS, instruction_set
from marfast import ops
from marfast.bench import floors, heads, images, timing
from marfast.bench.fits import fit
from marfast.bench.floors import Floors
from marfast.bench.results import Row, commit, machine, read_document, write_rows
from marfast.checkpoints import get_preset
from marfast.generation import Pipeline
from marfast.reference.mar import mask_lengths

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHORTEST = 0.02  # seconds of a timed run: shorter ones are repeated
HEAD = {"rows": 8, "steps": 25, "width": 1024, "depth": 6}  # MAR-B's, two images' last tokens
FEW_STEPS = 4  # of many rows: their (step, row) pairs fill tall products as it is


class Part(NamedTuple):
    """Work that takes at least max(arithmetic, reading), so many times."""

    flops: float
    bytes_read: float
    times: int = 1


@dataclass
class Case:
    """A point of an axis: what runs, and what it costs. A run is `units` units of time's."""

    x: int
    dtype: str
    run: Callable[[], object]
    units: float
    parts: list[Part]
    facts: dict[str, Any]
    threads: int = field(default_factory=torch.get_num_threads)

    def prepared(self) -> Callable[[], object]:
        """As many runs as take SHORTEST, with this case's threads."""
        torch.set_num_threads(self.threads)
        several, count = timing.repeated(self.run, SHORTEST)
        self.units *= count

        def run() -> None:
            torch.set_num_threads(self.threads)
            several()

        return run


class Axis(NamedTuple):
    """time = a + b · quantity(x), of a unit of a workload."""

    workload: str
    name: str
    unit: str
    values: Sequence[int]
    cases: Callable[[str, int], Case]  # of a dtype and a value
    rounds: int = 5

    @property
    def key(self) -> tuple[str, str]:
        return self.workload, self.name


QUANTITIES: dict[str, tuple[str, Callable[[int], float]]] = {
    "rows": ("R", float),
    "steps": ("S", float),
    "width": ("w²", lambda w: float(w**2)),
    "depth": ("d", float),
    "iterations": ("K", float),
    "batch": ("B", float),
    "threads": ("1/n", lambda n: 1 / n),
}


def head_case(axis: str, a_step: bool, dtype: str, x: int, **other: int) -> Case:
    """The head's loop by the CPU's kernel, its weights packed."""
    size = HEAD | other
    threads = torch.get_num_threads()
    if axis == "threads":
        threads = x
    else:
        size[axis] = x
    if axis == "rows" and x > 128:
        size["steps"] = FEW_STEPS
    rows, steps, width, depth = size.values()
    net, weights, packed = head_of(width, depth, dtype)
    work = heads.head_workload(net, rows, steps)
    noise, step_noise, cond, _, *options = work.arguments
    run = partial(ops.ddpm_sample, noise, step_noise, cond, weights, *options, packed)
    part = Part(work.flops_a_step(rows), work.weights_a_step * DTYPES[dtype].itemsize)
    units = steps if a_step else 1
    parts = [part._replace(times=steps // units)]
    return Case(x, dtype, run, units, parts, size, threads)


@functools.cache
def head_of(width: int, depth: int, dtype: str) -> tuple[Any, list[torch.Tensor], torch.Tensor]:
    """A head, its weights in this dtype, and those packed; forgotten after each axis."""
    net = heads.draw_head(16, width, depth, condition=768)
    weights = [weight.to(DTYPES[dtype]) for weight in net.parameters()]
    return net, weights, ops.pack_head(weights)


def loop_parts(
    module: Any, dtype: str, batch: int, iterations: int, steps: int, guided: bool
) -> list[Part]:
    """Transformers and head of each iteration."""
    itemsize = DTYPES[dtype].itemsize
    blocks = [*module.encoder_blocks, *module.decoder_blocks]
    weights = itemsize * sum(p.numel() for block in blocks for p in block.parameters())
    net = module.diffloss.net
    depth, width = net.num_res_blocks, net.model_channels
    rows = (2 if guided else 1) * batch
    lengths = mask_lengths(module.seq_len, iterations)
    parts = []
    for masked, left in itertools.pairwise([*lengths[:-1], 0]):
        if masked == left:
            continue
        flops = sum(images.transformer_flops(module, masked, left).values())
        parts.append(Part(rows * flops, weights))
        flops = 2.0 * rows * (masked - left) * (5 * depth + 2) * width**2
        parts.append(Part(flops, 2.0 * depth * width**2 * itemsize, steps))
    return parts


def loop_case(pipelines: dict[str, Pipeline], axis: str, dtype: str, x: int, batch: int) -> Case:
    """`generate` of the embedded model."""
    pipeline = pipelines[dtype]
    iterations, threads = pipeline.settings.num_iter, torch.get_num_threads()
    if axis == "threads":
        threads = x
    elif axis == "batch":
        batch = x
    else:
        iterations = x
    steps, guided = int(pipeline.settings.steps), pipeline.settings.cfg != 1.0
    labels = [i % 10 for i in range(batch)]
    run = partial(pipeline.generate, labels, seed=0, num_iter=iterations)
    parts = loop_parts(pipeline.model.module, dtype, batch, iterations, steps, guided)
    facts = {"batch": batch, "iterations": iterations, "steps": steps}
    return Case(x, dtype, run, 1, parts, facts, threads)


def image_case(module: Any, timed: int, steps: int, dtype: str, x: int) -> Case:
    """One image of MAR-B; `timed` of its K iterations stand for all."""
    settings = replace(get_preset("mar_base").settings, num_iter=x, steps=steps)
    who = images.Ours(module, None if dtype == "float32" else DTYPES[dtype])
    stride = max(1, x // timed)
    chosen = range(stride // 2, x, stride)
    runs = [who.prepare(images.Iteration(module, settings, steps, 1, k)) for k in chosen]

    def run() -> None:
        with torch.no_grad():
            for iteration in runs:
                iteration()

    parts = loop_parts(module, dtype, 1, x, steps, settings.cfg != 1.0)
    facts = {"batch": 1, "iterations": x, "iterations_timed": len(runs), "steps": steps}
    return Case(x, dtype, run, len(runs) / x, parts, facts)


def powers(last: int) -> list[int]:
    return [2**i for i in range(last.bit_length()) if 2**i <= last]


def axes(quick: bool) -> Iterator[Axis]:
    """What is measured; the models of an axis are made when it is reached."""
    threads = sorted({*powers(os.cpu_count() or 1), torch.get_num_threads()})
    rounds = 2 if quick else 5

    def few(*values: int) -> Sequence[int]:
        return values[: 2 * len(values) // 3 : 2] if quick else values

    def head(name: str, a_step: bool, values: Sequence[int], **other: int) -> Axis:
        unit = "step" if a_step else "sample"
        return Axis("head", name, unit, values, partial(head_case, name, a_step, **other), rounds)

    yield head("rows", True, few(*powers(4096)))
    yield head("steps", False, few(2, 5, 10, 25, 50, 100, 250))
    yield head("width", True, few(256, 384, 512, 768, 1024, 1280, 1536))
    yield head("depth", True, few(1, 2, 3, 4, 6, 8, 12))
    yield head("threads", True, threads, rows=128)
    name = "fashion-mnist"
    pipelines = {
        dtype: marfast.load(name, dtype=None if dtype == "float32" else half)
        for dtype, half in DTYPES.items()
    }
    case = partial(loop_case, pipelines)
    few_k = few(1, 2, 4, 6, 9, 12, 18, 24, 36, 49)
    yield Axis(name, "iterations", "batch", few_k, partial(case, "iterations", batch=1), rounds)
    few_b = few(*powers(128))
    yield Axis(name, "batch", "batch", few_b, partial(case, "batch", batch=1), rounds)
    yield Axis(name, "threads", "batch", threads, partial(case, "threads", batch=16), rounds)
    if not quick:
        steps = 25
        module = images.random_module("mar_base", steps)
        case = partial(image_case, module, 3, steps)
        yield Axis("image-b", "iterations", "image", (8, 32, 128, 256), case, rounds=3)


def measure(axis: Axis, limits: dict[int, Floors]) -> list[Row]:
    """A row for each point, all of them in turn."""
    cases = [axis.cases(dtype, x) for dtype in DTYPES for x in axis.values]
    threads = torch.get_num_threads()
    try:
        runs = {str(i): case.prepared() for i, case in enumerate(cases)}
        found = timing.in_turn(runs, axis.rounds)
    finally:
        torch.set_num_threads(threads)
        head_of.cache_clear()
    rows = []
    for i, case in enumerate(cases):
        limit = limits[case.threads]
        floor = sum(
            part.times * limit.seconds(part.flops, int(part.bytes_read), case.dtype)
            for part in case.parts
        )
        flops = sum(part.times * part.flops for part in case.parts)
        read = sum(part.times * part.bytes_read for part in case.parts)
        p20, p50, p80 = found.percentiles(str(i), 1e3 / case.units)
        rows.append(
            {
                "workload": axis.workload,
                "axis": axis.name,
                "x": case.x,
                "dtype": case.dtype,
                **case.facts,
                "threads": case.threads,
                "rounds": axis.rounds,
                "unit": axis.unit,
                "ms_p20_p50_p80": [p20, p50, p80],
                "gflop": float(f"{flops / 1e9:.4g}"),
                "weights_mb": float(f"{read / 1e6:.4g}"),
                "floor_ms": round(1e3 * floor, 5),
                "share_of_floor": round(1e3 * floor / p50, 3),
                "others_took": found.busy,
            }
        )
    return rows


def series(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of one line: workload, axis and dtype."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["workload"], row["axis"], row["dtype"]), []).append(row)
    return found


def fits(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The line of each series that has two points or more, in milliseconds of its unit."""
    found = []
    for (workload, axis, dtype), line in series(rows).items():
        name, quantity = QUANTITIES[axis]
        if len(line) < 2:
            continue
        measured = [row["ms_p20_p50_p80"][1] for row in line]
        line_found = fit([quantity(row["x"]) for row in line], measured)
        figures = {
            key: None if value is None else float(f"{value:.4g}")
            for key, value in asdict(line_found).items()
        }
        what = {"workload": workload, "axis": axis, "dtype": dtype, "unit": line[0]["unit"]}
        found.append(what | {"quantity": name, "points": len(line)} | figures)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few points, into build/")
    parser.add_argument("--again", action="store_true", help="run finished axes, too")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    isa = instruction_set()
    out = options.out or (BUILD if options.quick else RESULTS) / f"scaling-{isa}.json"
    rows = [] if options.again else resumed(out)
    finished = {(row["workload"], row["axis"]) for row in rows}
    limits: dict[int, Floors] = {}
    try:
        for axis in axes(options.quick):
            if axis.key in finished:
                print(f"{' '.join(axis.key)}: finished at this commit")
                continue
            start = time.perf_counter()
            limits = limits or all_limits(options.quick)
            rows += measure(axis, limits)
            facts = {"isa": isa, "head": HEAD, "floors": described(limits), "fits": fits(rows)}
            write_rows(out, rows, force=True, commit=commit(), **facts)
            print(f"{' '.join(axis.key)}: {time.perf_counter() - start:.0f} s", flush=True)
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted: finished axes are in {out}, and not run again") from None
    print(out)


def resumed(file: Path) -> list[Row]:
    """The rows of an earlier run of the same code on the same machine, or none."""
    document = read_document(file)
    same = document.get("commit") == commit() and document.get("machine") == machine()
    rows: list[Row] = document["rows"] if same else []
    return rows


def all_limits(quick: bool) -> dict[int, Floors]:
    """The machine's limits for each number of threads."""
    before = torch.get_num_threads()
    limits = {}
    for threads in sorted({*powers(os.cpu_count() or 1), before}):
        torch.set_num_threads(threads)
        limits[threads] = floors.measure(floors.LEVELS[::3] if quick else floors.LEVELS)
    torch.set_num_threads(before)
    return limits


def described(limits: dict[int, Floors]) -> list[dict[str, Any]]:
    return [{"threads": threads, **limit.to_dict()} for threads, limit in limits.items()]


if __name__ == "__main__":
    main()
