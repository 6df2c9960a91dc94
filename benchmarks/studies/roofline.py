"""How near each CPU kernel comes to the machine's roofs: arithmetic for a byte against FLOP/s.

    python -m benchmarks.studies.roofline    # a minute or two

The sizes are MAR-B's and KL-16's. Bytes are those that nobody gets round: inputs, outputs and
weights once; of the head's loop the MLPs' weights in every step and adaLN's once. Arithmetic of
what is no product is counted an element: 8 for LayerNorm and modulation, 12 with GroupNorm's SiLU,
20 for a denoising step. Everybody's result is compared with plain PyTorch's first; all take turns.
The roofs are measured in the same run. Writes benchmarks/results/roofline-<instruction set>.json.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.studies import BUILD, RESULTS, instruction_set
from marfast import ops
from marfast.bench import floors, heads, timing
from marfast.bench.results import commit, write_rows
from marfast.ops.op import which

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # RMS, of the result's own
SHORTEST = 0.02  # seconds of a timed run
STEPS, WIDTH, DEPTH = 25, 1024, 6
TRANSFORMER, HEADS, POSITIONS = 768, 12, 2 * 320  # of MAR-B, an image under guidance


class Kernel(NamedTuple):
    op: str
    case: str
    dtype: str
    arguments: tuple[Any, ...]
    flops: float
    moved: float  # bytes

    def run(self) -> Tensor:
        return getattr(ops, self.op)(*self.arguments)


def kernels(rows: tuple[int, ...]) -> Iterator[Kernel]:
    """Every op with the arguments that MAR-B or KL-16 gives it."""
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(sizes, generator=generator).to(dtype)

    net = heads.draw_head(16, WIDTH, DEPTH, TRANSFORMER)
    square, d = WIDTH**2, DEPTH
    for name, dtype in DTYPES.items():
        size = dtype.itemsize
        weights = [weight.to(dtype) for weight in net.parameters()]
        packed = ops.pack_head(weights)
        for r in rows:
            work = heads.head_workload(net, r, STEPS)
            noise, step_noise, cond, _, *rest = work.arguments
            arguments = (noise, step_noise, cond, weights, *rest, packed)
            moved = size * (2 * d * STEPS + 3 * d + 2) * square
            flops = STEPS * work.flops_a_step(r)
            yield Kernel("ddpm_sample", f"R = {r}", name, arguments, flops, moved)
        r = 8
        once = draw(r, 16), torch.full((r,), 500), draw(r, TRANSFORMER), weights, packed
        moved = size * (5 * d + 2) * square
        yield Kernel("denoise", f"R = {r}", name, once, 2.0 * r * (5 * d + 2) * square, moved)

        mlp = [draw(WIDTH, WIDTH, dtype=dtype) / 32, draw(WIDTH, dtype=dtype)] * 2
        modulation = [draw(r, WIDTH) for _ in range(4)]
        block = (*modulation, torch.ones(WIDTH), torch.zeros(WIDTH), *mlp, 1e-6)
        block = (*block, ops.pack_adaln_mlp(*mlp))
        moved = size * 2 * square + 4 * 5 * r * WIDTH
        yield Kernel("adaln_mlp", f"R = {r}", name, block, 4.0 * r * square, moved)

        inner = 4 * TRANSFORMER
        weight, bias = draw(inner, TRANSFORMER, dtype=dtype) / 28, draw(inner, dtype=dtype)
        norm = torch.ones(TRANSFORMER), torch.zeros(TRANSFORMER)
        linear = (draw(POSITIONS, TRANSFORMER), weight, bias, *norm, None, True, 1e-6)
        linear = (*linear, ops.pack_linear(weight, bias))
        flops = 2.0 * POSITIONS * inner * TRANSFORMER
        moved = size * inner * TRANSFORMER + 4 * POSITIONS * (inner + TRANSFORMER)
        yield Kernel("fused_linear", f"R = {POSITIONS}", name, linear, flops, moved)

        length = POSITIONS // 2
        qkv = draw(2, length, 3, HEADS, TRANSFORMER // HEADS, dtype=dtype)
        flops, moved = 4.0 * 2 * length**2 * TRANSFORMER, size * 4 * 2 * length * TRANSFORMER
        yield Kernel("attention", f"2 x {length}", name, (qkv,), flops, moved)

        r = 8192
        modulated = tuple(draw(r, WIDTH, dtype=dtype) for _ in range(3))
        moved = size * 4 * r * WIDTH
        yield Kernel("layer_norm_modulate", f"R = {r}", name, modulated, 8.0 * r * WIDTH, moved)

        pixels = draw(1, 128, 256, 256, dtype=dtype).to(memory_format=torch.channels_last)
        affine = torch.ones(128, dtype=dtype), torch.zeros(128, dtype=dtype)
        count = pixels.numel()
        moved = size * 2 * count
        yield Kernel("group_norm_silu", "128 x 256²", name, (pixels, *affine), 12.0 * count, moved)

        tokens, c = 65536, 16
        step = draw(tokens, c), draw(2 * tokens, 2 * c, dtype=dtype), draw(tokens, c)
        arguments = (*step, *(rest[0][5], torch.tensor([2.9])), 1.0, True)
        moved = 12 * tokens * c + size * 4 * tokens * c
        yield Kernel("ddpm_step", f"N = {tokens}", name, arguments, 20.0 * tokens * c, moved)


def check(kernel: Kernel) -> None:
    with ops.backend("reference"):
        expected = kernel.run().float()
    off = (kernel.run().float() - expected).square().mean().sqrt()
    relative = float(off / expected.square().mean().sqrt())
    if not relative < TOLERANCE[kernel.dtype]:
        raise SystemExit(f"{kernel.op} {kernel.case} {kernel.dtype}: off by {relative:.3g}")


@torch.no_grad()
def measure(found: list[Kernel], rounds: int) -> list[dict[str, Any]]:
    """A row for each kernel, all of them in turn."""
    runs: dict[str, Callable[[], object]] = {}
    counts = {}
    for i, kernel in enumerate(found):
        check(kernel)
        runs[str(i)], counts[str(i)] = timing.repeated(kernel.run, SHORTEST)
    times = timing.in_turn(runs, rounds)
    rows = []
    for i, kernel in enumerate(found):
        p20, p50, p80 = times.percentiles(str(i), 1e6 / counts[str(i)])
        rows.append(
            {
                "op": kernel.op,
                "case": kernel.case,
                "dtype": kernel.dtype,
                "backend": which(kernel.op, *kernel.arguments),
                "rounds": rounds,
                "us_p20_p50_p80": [p20, p50, p80],
                "flops_a_byte": round(kernel.flops / kernel.moved, 4),
                "gflops_a_second": round(kernel.flops / p50 / 1e3, 3),
                "gb_a_second": round(kernel.moved / p50 / 1e3, 3),
                "others_took": times.busy,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows and rounds, into build/")
    options = parser.parse_args()
    isa = instruction_set()
    sizes, rounds = ((2, 8), 2) if options.quick else ((2, 8, 32, 128, 512), 9)
    rows = measure([*kernels(sizes)], rounds)
    limits = floors.measure()
    out = (BUILD if options.quick else RESULTS) / f"roofline-{isa}.json"
    write_rows(out, rows, force=True, commit=commit(), isa=isa, floors=limits.to_dict())
    for row in rows:
        print(f"{row['op']} {row['case']} {row['dtype']}: {row['gflops_a_second']:.1f} GFLOP/s")
    print(out)


if __name__ == "__main__":
    main()
