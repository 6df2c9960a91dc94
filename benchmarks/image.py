"""One whole image (latents) of MAR-B, L or H at batch 1, by phase: marfast beside the reference.

    python benchmarks/image.py                       # mar_base, 100 steps, K = 64 and 256
    python benchmarks/image.py --model mar_large --iterations 64

The shapes of all K iterations are known beforehand, so every n-th iteration is timed, with random
weights and tokens at its shapes, ours and the reference's in turn, and stands for n of them. Both
results are compared in the same run. Writes benchmarks/results/image-<instruction set>.json.
"""

import argparse
import subprocess
import time
from typing import Any

import torch
from floors import measure
from quality.results import FOLDER, read_rows, write_rows
from rich.console import Console
from rich.table import Table

from marfast.model import FastMAR, get_preset
from marfast.ops import native
from marfast.reference.mar import first_in_order, guidance_scale, mask_lengths, random_orders

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


@torch.no_grad()
def measure_iteration(
    model: FastMAR, masked: int, left: int, scale: Any, steps: int
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

    def reference_condition() -> torch.Tensor:
        x = m.forward_mae_encoder(tokens, mask, embedding)
        return m.forward_mae_decoder(x, mask)[to_predict]

    ours, z = seconds(lambda: model.condition(tokens, known, predict, embedding))
    theirs, expected = seconds(reference_condition)
    head, _ = seconds(lambda: model.sample_head(z, noise, step_noise, schedule, scale, 1.0, True))
    reference_head, _ = seconds(lambda: m.diffloss.sample(expected, 1.0, scale))
    difference = float((z - expected).abs().max() / expected.abs().max())
    if not difference < TOLERANCE:
        raise SystemExit(f"off by {difference:.3g} of the largest value")
    return {
        "transformers": ours,
        "head": head,
        "reference_transformers": theirs,
        "reference_head": reference_head,
        "difference": difference,
    }


def transformer_flops(m: Any, masked: int) -> float:
    """Of encoder and decoder, two rows: 24 D² a position and block, and attention."""

    def blocks(depth: int, width: int, positions: int) -> float:
        return 2.0 * depth * (24 * width**2 * positions + 4 * width * positions**2)

    encoder, decoder = m.encoder_norm.weight.numel(), m.decoder_norm.weight.numel()
    known = m.buffer_size + m.seq_len - masked
    return blocks(len(m.encoder_blocks), encoder, known) + blocks(
        len(m.decoder_blocks), decoder, m.buffer_size + m.seq_len
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mar_base")
    parser.add_argument("--iterations", default="64,256")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--timed", type=int, default=8, help="iterations that are timed")
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
            scale = guidance_scale(cfg, "linear", m.seq_len, lengths[step + 1])
            phases = measure_iteration(
                model, lengths[step], lengths_after[step], scale, arguments.steps
            )
            flops += transformer_flops(m, lengths[step]) * iterations / len(timed)
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
