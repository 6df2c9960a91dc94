"""One whole image (latents) of MAR-B, L or H at batch 1, by phase: marfast beside the reference.

    python benchmarks/image.py                       # mar_base, 100 steps, K = 64 and 256
    python benchmarks/image.py --model mar_large --iterations 64

The shapes of all K iterations are known beforehand, so every n-th iteration is timed, with random
weights and tokens at its shapes, and stands for n of them: medians of runs in turn of marfast in
float32 and in bfloat16, and of the reference in float32 and under a warm bfloat16 autocast, on the
same inputs, after a run of each in which their results are compared.
Writes benchmarks/results/image-<instruction set>.json.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from floors import peak
from quality.results import FOLDER, read_rows, write_rows
from rich.console import Console
from rich.table import Table
from timing import commit, in_turn, seconds

from marfast import ops
from marfast.model import FastMAR, get_preset
from marfast.ops import native
from marfast.reference.mar import first_in_order, guidance_scale, mask_lengths, random_orders

Run = Callable[[], torch.Tensor]
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # of the reference's largest value
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def make_module(preset: str, steps: int) -> Any:
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
    return module  # its weights require gradients: only such are kept by autocast's cache


def phases(model: FastMAR, masked: int, left: int, scale: Any, steps: int) -> dict[str, Run]:
    """Both phases of one iteration at its shapes, two rows (guidance), and the reference's."""
    m = model.module
    orders = random_orders(1, m.seq_len, np.random.RandomState(masked)).repeat(2, 1)
    known = orders[:, masked:].sort(dim=1).values
    predict = orders[:, left:masked].sort(dim=1).values
    mask = first_in_order(orders, masked)
    to_predict = (mask - first_in_order(orders, left)).bool()
    generator = torch.Generator().manual_seed(masked)

    def draw(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator)

    tokens = draw(1, m.seq_len, m.token_embed_dim).repeat(2, 1, 1)
    embedding = model.class_embedding(torch.tensor([1, -1]))
    count = masked - left
    noise, step_noise = draw(count, m.token_embed_dim), draw(steps, count, m.token_embed_dim)
    schedule = model.schedule()

    def reference_condition() -> torch.Tensor:
        x = m.forward_mae_encoder(tokens, mask, embedding)
        return m.forward_mae_decoder(x, mask)[to_predict]

    z = reference_condition().float()

    def head() -> torch.Tensor:
        return model.sample_head(z, noise, step_noise, schedule, scale, 1.0, True)

    def reference_head() -> torch.Tensor:
        with ops.backend("reference"):
            weights = [*m.diffloss.net.parameters()]
            return ops.ddpm_sample(noise, step_noise, z, weights, *schedule, scale, 1.0, True)

    return {
        "transformers": lambda: model.condition(tokens, known, predict, embedding),
        "head": head,
        "reference transformers": reference_condition,
        "reference head": reference_head,
    }


def measure_iteration(
    models: dict[str, FastMAR], shape: tuple[Any, ...], rounds: int
) -> dict[str, float]:
    """Seconds of each phase, by who runs it, and the largest difference."""
    result: dict[str, float] = {"busy": 0.0}
    parts = {dtype: phases(model, *shape) for dtype, model in models.items()}
    for phase in ("transformers", "head"):
        reference = parts["float32"][f"reference {phase}"]

        def autocast(run: Run = reference) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return run()

        expected = reference()
        runs = {dtype: parts[dtype][phase] for dtype in models}
        for dtype, run in runs.items():
            off = float((run() - expected).abs().max() / expected.abs().max())
            if not off < TOLERANCE[dtype]:
                raise SystemExit(f"{phase}, {dtype}: off by {off:.3g}; nothing was timed")
            result[f"{dtype} difference"] = max(result.get(f"{dtype} difference", 0.0), off)
        timing = in_turn({"eager": reference, "autocast": autocast, **runs}, rounds)
        for name, times in timing.seconds.items():
            result[f"{name} {phase}"] = float(np.median(times))
        result["busy"] = max(result["busy"], timing.busy)
    return result


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
    parser.add_argument("--timed", type=int, default=4, help="iterations that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each that are timed")
    options = parser.parse_args()
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")

    torch.autocast_increment_nesting()  # so that leaving a context keeps the cast weights
    module = make_module(options.model, options.steps)
    models = {name: FastMAR(module, dtype) for name, dtype in DTYPES.items()}
    packing = {name: round(seconds(model.refresh), 3) for name, model in models.items()}
    peaks = {name: peak(dtype or torch.float32) for name, dtype in DTYPES.items()}
    file = FOLDER / f"image-{native.extension().isa()}.json"
    rows = [row for row in read_rows(file) if row["model"] != options.model]
    table = Table("model", "K", "phase", "dtype", "marfast", "eager", "autocast", "ratio", "peak")
    for iterations in map(int, options.iterations.split(",")):
        with torch.no_grad():
            row = measure_image(models, iterations, options)
        for dtype in DTYPES:
            flops = row["transformer_flops"] / row["seconds"][f"{dtype} transformers"]
            row[f"{dtype}_share_of_peak"] = round(flops / peaks[dtype], 3)
            for phase in ("transformers", "head", "image"):
                ours, *others = (
                    row["seconds"][f"{n} {phase}"] for n in (dtype, "eager", "autocast")
                )
                share = f"{100 * row[f'{dtype}_share_of_peak']:.0f} %"
                table.add_row(
                    *(options.model, str(iterations), phase, dtype, f"{ours:.1f} s"),
                    *(f"{other:.1f} s" for other in others),
                    f"{others[0] / ours:.2f}x",
                    share if phase == "transformers" else "",
                )
        rows.append(row | {"packing_seconds": packing})
        write_rows(file, rows, commit=commit(), peak_flops=peaks)
    Console().print(table)


def measure_image(
    models: dict[str, FastMAR], iterations: int, options: argparse.Namespace
) -> dict[str, Any]:
    m, cfg = models["float32"].module, get_preset(options.model).settings.cfg
    lengths = mask_lengths(m.seq_len, iterations)
    lengths_after = [*lengths[1:-1], 0]
    stride = max(1, iterations // options.timed)
    timed = range(stride // 2, iterations, stride)
    total: dict[str, float] = {}
    worst: dict[str, float] = {}
    flops = 0.0
    for step in timed:
        cfg_now = guidance_scale(cfg, "linear", m.seq_len, lengths[step + 1])
        scale = torch.as_tensor(cfg_now, dtype=torch.float32).reshape(1)
        shape = (lengths[step], lengths_after[step], scale, options.steps)
        share = iterations / len(timed)
        predicted = lengths[step] - lengths_after[step]
        flops += transformer_flops(m, lengths[step], predicted) * share
        for name, value in measure_iteration(models, shape, options.rounds).items():
            if name == "busy" or name.endswith("difference"):
                worst[name] = max(worst.get(name, 0.0), value)
            else:
                total[name] = total.get(name, 0.0) + value * share
    for name in ("eager", "autocast", *DTYPES):
        total[f"{name} image"] = total[f"{name} transformers"] + total[f"{name} head"]
    return {
        "model": options.model,
        "iterations": iterations,
        "steps": options.steps,
        "iterations_timed": len(timed),
        "rounds": options.rounds,
        "seconds": {name: round(value, 4) for name, value in total.items()},
        "ratio": {
            dtype: round(total["eager image"] / total[f"{dtype} image"], 3) for dtype in DTYPES
        },
        "transformer_flops": flops,
        "worst": worst,
    }


if __name__ == "__main__":
    main()
