"""One whole image (latents) of MAR-B, L or H at batch 1, by phase: marfast beside the reference.

    python benchmarks/image.py                       # mar_base, 100 steps, K = 64 and 256
    python benchmarks/image.py --model mar_large --iterations 64

The shapes of all K iterations are known beforehand, so every n-th iteration is timed, with random
weights and tokens at its shapes, and stands for n of them: medians of runs of ours and of the
reference's in turn, on the same inputs, after a run of each in which their results are compared.
Writes benchmarks/results/image-<instruction set>.json.
"""

import argparse
import subprocess
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from floors import measure
from quality.results import FOLDER, read_rows, write_rows
from rich.console import Console
from rich.table import Table

from marfast import ops
from marfast.model import FastMAR, get_preset
from marfast.ops import native
from marfast.reference.mar import first_in_order, guidance_scale, mask_lengths, random_orders

Run = Callable[[], torch.Tensor]
TOLERANCE = 1e-3  # of the reference's largest value


def make_model(preset: str, steps: int) -> FastMAR:
    module = get_preset(preset).architecture.build(steps=str(steps), clip_denoised=True)
    generator = torch.Generator().manual_seed(0)
    module.load_state_dict(
        {
            name: torch.randn(value.shape, generator=generator) * 0.02
            + (1.0 if name.endswith("norm1.weight") or name.endswith("norm2.weight") else 0.0)
            for name, value in module.state_dict().items()
        },
        assign=True,
    )
    module.requires_grad_(False)
    return FastMAR(module)


def seconds(function: Any) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def in_turn(rounds: int, ours: Run, reference: Run) -> tuple[float, float, float]:
    """Median seconds of both, and the largest difference relative to the reference's largest value.

    Neither's first run counts; which goes first alternates.
    """
    expected = reference()
    difference = float((ours() - expected).abs().max() / expected.abs().max())
    if not difference < TOLERANCE:
        raise SystemExit(f"off by {difference:.3g} of the largest value; nothing was timed")
    times: dict[Run, list[float]] = {ours: [], reference: []}
    for i in range(rounds):
        for run in (ours, reference)[:: 1 if i % 2 else -1]:
            times[run].append(seconds(run)[0])
    return median(times[ours]), median(times[reference]), difference


@torch.no_grad()
def measure_iteration(
    model: FastMAR, masked: int, left: int, scale: Any, steps: int, rounds: int
) -> dict[str, float]:
    """Seconds of each phase at the shapes of one iteration, two rows (guidance)."""
    m = model.module
    orders = random_orders(1, m.seq_len).repeat(2, 1)
    known = orders[:, masked:].sort(dim=1).values
    predict = orders[:, left:masked].sort(dim=1).values
    mask = first_in_order(orders, masked)
    to_predict = (mask - first_in_order(orders, left)).bool()
    tokens = torch.randn(1, m.seq_len, m.token_embed_dim).repeat(2, 1, 1)
    embedding = model.class_embedding(torch.tensor([1, -1]))
    count = masked - left
    noise = torch.randn(count, m.token_embed_dim)
    step_noise = torch.randn(steps, count, m.token_embed_dim)
    schedule = model.schedule()

    def condition() -> torch.Tensor:
        return model.condition(tokens, known, predict, embedding)

    def reference_condition() -> torch.Tensor:
        x = m.forward_mae_encoder(tokens, mask, embedding)
        return m.forward_mae_decoder(x, mask)[to_predict]

    z = reference_condition()

    def head() -> torch.Tensor:
        return model.sample_head(z, noise, step_noise, schedule, scale, 1.0, True)

    def reference_head() -> torch.Tensor:
        with ops.backend("reference"):
            return head()

    transformers, reference_transformers, off = in_turn(rounds, condition, reference_condition)
    sampler, reference_sampler, head_off = in_turn(rounds, head, reference_head)
    return {
        "transformers": transformers,
        "head": sampler,
        "reference_transformers": reference_transformers,
        "reference_head": reference_sampler,
        "difference": max(off, head_off),
    }


def transformer_flops(m: Any, masked: int, predicted: int) -> float:
    """What the thin model computes, two rows: a block has 24 D² a position and its attention; of
    the last one only qkv (6 D²) and the keys see all positions, the rest those to predict."""

    def blocks(depth: int, width: int, positions: int) -> float:
        return depth * (24.0 * width**2 * positions + 4.0 * width * positions**2)

    encoder, decoder = m.encoder_norm.weight.numel(), m.decoder_norm.weight.numel()
    known, positions = m.buffer_size + m.seq_len - masked, m.buffer_size + m.seq_len
    last = 6.0 * decoder**2 * positions + (18 * decoder + 4 * positions) * decoder * predicted
    return 2 * (
        blocks(len(m.encoder_blocks), encoder, known)
        + blocks(len(m.decoder_blocks) - 1, decoder, positions)
        + last
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mar_base")
    parser.add_argument("--iterations", default="64,256")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--timed", type=int, default=8, help="iterations that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each that are timed")
    arguments = parser.parse_args()
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    model = make_model(arguments.model, arguments.steps)
    m, cfg = model.module, get_preset(arguments.model).settings.cfg
    packing, _ = seconds(model.refresh)
    peak = measure([1 << 22]).flops
    file = FOLDER / f"image-{native.extension().isa()}.json"
    rows = [row for row in read_rows(file) if row["model"] != arguments.model]
    table = Table("model", "K", "phase", "marfast", "reference", "ratio", "of peak")
    for iterations in map(int, arguments.iterations.split(",")):
        lengths = mask_lengths(m.seq_len, iterations)
        lengths_after = [*lengths[1:-1], 0]
        stride = max(1, iterations // arguments.timed)
        timed = range(stride // 2, iterations, stride)
        total: dict[str, float] = {}
        flops = 0.0
        for step in timed:
            cfg_now = guidance_scale(cfg, "linear", m.seq_len, lengths[step + 1])
            scale = torch.as_tensor(cfg_now, dtype=torch.float32).reshape(1)
            phases = measure_iteration(
                model, lengths[step], lengths_after[step], scale, arguments.steps, arguments.rounds
            )
            predicted = lengths[step] - lengths_after[step]
            of_iteration = transformer_flops(m, lengths[step], predicted)
            flops += of_iteration * iterations / len(timed)
            for name, value in phases.items():
                worst = max(total.get(name, 0.0), value)
                summed = total.get(name, 0.0) + value * iterations / len(timed)
                total[name] = worst if name == "difference" else summed
        total["image"] = total["transformers"] + total["head"]
        total["reference_image"] = total["reference_transformers"] + total["reference_head"]
        rows.append(
            {
                "model": arguments.model,
                "iterations": iterations,
                "steps": arguments.steps,
                "iterations_timed": len(timed),
                "rounds": arguments.rounds,
                "seconds": {name: round(value, 6) for name, value in total.items()},
                "ratio": round(total["reference_image"] / total["image"], 3),
                "transformers_share_of_peak": round(flops / total["transformers"] / peak, 3),
                "packing_seconds": round(packing, 3),
            }
        )
        for phase in ("transformers", "head", "image"):
            ours, theirs = total[phase], total[f"reference_{phase}"]
            share = f"{100 * flops / ours / peak:.0f} %" if phase == "transformers" else ""
            table.add_row(
                *(arguments.model, str(iterations), phase, f"{ours:.1f} s", f"{theirs:.1f} s"),
                *(f"{theirs / ours:.2f}x", share),
            )
        write_rows(file, rows, commit=commit.strip(), peak_gflops=round(peak / 1e9, 1))
    Console().print(table)


if __name__ == "__main__":
    main()
