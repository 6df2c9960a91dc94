"""Quality beside the original's: LTH14/mar and marfast generate from the same weights and seed.

    python -m benchmarks.studies.quality.against_original --original PATH --checkpoint FILE.pth

Four times the same images, 100 of each class, at the model's default settings: by the original's
code (in a subprocess, see marfast/verifying), by its model after `marfast.accelerate`, by
marfast from the same file, and by the embedded model; beside them what real images get. Written to
benchmarks/results/quality-against-original.json.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import marfast
from benchmarks.studies import RESULTS
from benchmarks.studies.quality.measure import evaluate_images
from marfast.bench.results import write_rows
from marfast.checkpoints import get_preset
from marfast.checkpoints.read import read_weights
from marfast.evaluation.real_images import real_images
from marfast.training.fashion_mnist import CLASS_NAMES
from marfast.verifying.case import Case, Implementation, Result, seed_all
from marfast.verifying.original import (
    RunningOriginal,
    commit,
    require_checkout,
    require_packages,
)

MODEL = "fashion-mnist"
REQUEST = "MARFAST_SAMPLE_REQUEST"  # from this process to the original's: checkpoint, labels, seed


def sample(accelerated: bool, implementation: Implementation) -> Result:
    """Images by ``sample_tokens`` of an implementation of MAR, as the request has it."""
    request, preset = json.loads(os.environ[REQUEST]), get_preset(MODEL)
    settings = preset.settings
    module = implementation.mar(
        **preset.architecture.arguments(),
        num_sampling_steps=str(settings.steps),
        clip_denoised=settings.clip_denoised,
    ).eval()
    read_weights(Path(request["checkpoint"])).fill(module)
    labels = torch.tensor(request["labels"])
    if accelerated:
        marfast.accelerate(module)
    seed_all(request["seed"])
    with torch.no_grad():
        images = module.sample_tokens(
            len(labels),
            num_iter=settings.num_iter,
            cfg=settings.cfg,
            cfg_schedule=settings.cfg_schedule,
            labels=labels,
            temperature=settings.temperature,
        )
    return {"images": images.clamp(-1, 1)}


def all_cases() -> list[Case]:
    """What the original's process runs."""
    return [
        Case("quality", "sample", partial(sample, False)),
        Case("quality", "sample, accelerated", partial(sample, True)),
    ]


def original_images(
    original: Path, request: dict[str, Any], threads: int, accelerated: bool
) -> torch.Tensor:
    """Images [N, 1, 28, 28] by the original's code, or by its accelerated model."""
    os.environ[REQUEST] = json.dumps(request)
    case = int(accelerated)
    with RunningOriginal(original, __spec__.name, [case], threads) as process:
        result = process.result(case)
    if "error" in result:
        raise RuntimeError(f"the original failed: {result['error']}")
    images: torch.Tensor = result["images"]
    return images


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, required=True, help="a checkout of LTH14/mar")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its .pth of this model")
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "quality-against-original.json")
    return parser.parse_args()


def main() -> None:
    chosen, console = arguments(), Console()
    checkout, checkpoint = require_checkout(chosen.original), chosen.checkpoint.resolve()
    require_packages()
    labels = [i % len(CLASS_NAMES) for i in range(chosen.images)]
    request = {"checkpoint": str(checkpoint), "labels": labels, "seed": chosen.seed}
    threads = torch.get_num_threads()
    ways = {
        "original, same weights": lambda: original_images(checkout, request, threads, False),
        "original, accelerated": lambda: original_images(checkout, request, threads, True),
        "marfast, same weights": lambda: marfast.load(checkpoint, preset=MODEL).generate(
            labels, seed=chosen.seed
        ),
        "marfast, embedded model": lambda: marfast.load(MODEL).generate(labels, seed=chosen.seed),
    }

    rows: list[dict[str, Any]] = []
    first: torch.Tensor | None = None
    for what, generate in ways.items():
        start = time.perf_counter()
        images = generate()
        seconds = time.perf_counter() - start
        first = images if first is None else first
        difference = float((images - first).abs().max())
        quality = asdict(evaluate_images(images, labels))
        rows.append({
            "what": what, **quality, "largest_difference_to_first": difference, "seconds": seconds
        })  # fmt: skip
        console.print(f"{what}: {seconds:.0f} s")

    real = {
        "accuracy": real_images().accuracy,
        "frechet_distance": real_images().distance(chosen.images),
    }
    write_rows(
        chosen.out,
        rows,
        force=True,
        model=MODEL,
        settings=asdict(get_preset(MODEL).settings),
        seed=chosen.seed,
        original_commit=commit(checkout),
        real_images=real,
    )
    console.print(table(rows, real, chosen.images))


def table(rows: list[dict[str, Any]], real: dict[str, float], n: int) -> Table:
    result = Table(title=f"fashion-mnist: {n:,} images at the default settings")
    result.add_column("")
    for heading in ("accuracy", "Fréchet", "largest difference"):
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(
            row["what"],
            f"{row['accuracy']:.1%}",
            f"{row['frechet_distance']:.3f}",
            f"{row['largest_difference_to_first']:.1e}",
        )
    result.add_row("real images", f"{real['accuracy']:.1%}", f"{real['frechet_distance']:.3f}", "")
    return result


if __name__ == "__main__":
    main()
