"""KL-16's decoder with random weights: marfast beside the reference, or beside the original.

    python -m benchmarks.studies.vae                            # a 256 x 256 image; 16 in chunks
    python -m benchmarks.studies.vae --original path/to/mar     # with LTH14/mar's own, too

All decode the same latents with the same weights in turn, round by round, in one process, after a
run of each in which results are compared: the original must equal the reference bit for bit,
marfast be as close as float32 allows. Peak memory is the largest resident set of a process that
makes the weights and decodes once. Writes benchmarks/results/vae-<instruction set>.json.
"""

import argparse
import contextlib
import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.studies import RESULTS, ROOT, instruction_set
from marfast.bench.results import commit, write_rows
from marfast.model import KLTokenizer
from marfast.reference import AutoencoderKL

Decode = Callable[[torch.Tensor], torch.Tensor]
TOLERANCE = 1e-4  # of the reference's largest value
SIDE = 16  # latents along a side of a 256 x 256 image


def make(who: str, original: str | None) -> Decode:
    """The decoder of KL-16, its weights drawn from the same seed whoever it is."""
    torch.manual_seed(0)
    if who == "original":
        sys.path.insert(0, str(original))
        with contextlib.redirect_stdout(None):  # it prints the shape of its latents
            module = importlib.import_module("models.vae").AutoencoderKL(16, (1, 1, 2, 2, 4))
    else:
        module = AutoencoderKL()
    module.eval().requires_grad_(False)
    if who == "marfast":
        return KLTokenizer(module.to(memory_format=torch.channels_last), scale=1.0).decode
    return module.decode


def latents(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return 4 * torch.randn(batch, 16, SIDE, SIDE, generator=generator)


def peak(who: str, batch: int, original: str | None) -> dict[str, float]:
    """MB of the largest resident set before and after decoding, in this process."""

    def most() -> float:
        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)

    decode = make(who, original)
    loaded = most()
    with torch.no_grad():
        decode(latents(batch))
    return {"loaded_mb": loaded, "peak_mb": most()}


def peak_elsewhere(who: str, batch: int, arguments: argparse.Namespace) -> dict[str, float]:
    """`peak`, in a process of its own."""
    options = ["--peak", who, "--batches", str(batch)]
    options += ["--original", arguments.original] if arguments.original else []
    command = [sys.executable, "-m", "benchmarks.studies.vae", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def in_turn(decoders: dict[str, Decode], rounds: int) -> tuple[dict[str, Any], float]:
    """p20, p50, p80 of each one's seconds for one image, and how far marfast's result is from the
    reference's, relative to its largest value. Who goes first alternates."""
    z = latents(1)
    results = {who: decode(z) for who, decode in decoders.items()}
    expected = results["reference"]
    if "original" in results and not torch.equal(results["original"], expected):
        raise SystemExit("the original and the reference differ; nothing was timed")
    difference = float((results["marfast"] - expected).abs().max() / expected.abs().max())
    if not difference < TOLERANCE:
        raise SystemExit(f"off by {difference:.3g} of the largest value; nothing was timed")
    times: dict[str, list[float]] = {who: [] for who in decoders}
    for i in range(rounds):
        for who in [*decoders][:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            decoders[who](z)
            times[who].append(time.perf_counter() - start)
    percentiles = {who: np.percentile(t, [20, 50, 80]).round(4) for who, t in times.items()}
    return {who: found.tolist() for who, found in percentiles.items()}, difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", metavar="PATH", help="a checkout of LTH14/mar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="16", help="decoded in chunks, besides one image")
    parser.add_argument("--peak", metavar="WHO", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.original:
        arguments.original = str(Path(arguments.original).resolve())
    if arguments.peak:
        print(json.dumps(peak(arguments.peak, int(arguments.batches), arguments.original)))
        return
    isa = instruction_set()

    names = ["marfast", "reference", *(["original"] if arguments.original else [])]
    batches = [int(batch) for batch in arguments.batches.split(",")]
    jobs = [*((who, 1) for who in names), *(("marfast", batch) for batch in batches)]
    # First: a child's largest resident set begins at that of this process.
    rows: list[dict[str, Any]] = [
        {"decoder": who, "batch": batch} | peak_elsewhere(who, batch, arguments)
        for who, batch in jobs
    ]
    decoders = {who: make(who, arguments.original) for who in names}
    times, difference = in_turn(decoders, arguments.rounds)
    for row in rows[: len(names)]:
        found = times[row["decoder"]]
        row |= {"seconds": found[1], "p20_p50_p80": found}
    for row in rows[len(names) :]:
        z = latents(row["batch"])
        start = time.perf_counter()
        decoders["marfast"](z)
        row["seconds"] = round(time.perf_counter() - start, 4)

    ours, theirs = rows[0], rows[len(names) - 1]
    baseline = names[-1]
    facts = {
        "instruction_set": isa,
        "rounds": arguments.rounds,
        "difference": difference,
        "baseline": baseline,
        "ratio": round(theirs["seconds"] / ours["seconds"], 3),
        "peak_memory_ratio": round(ours["peak_mb"] / theirs["peak_mb"], 3),
    }
    write_rows(RESULTS / f"vae-{isa}.json", rows, force=True, commit=commit(), **facts)
    table = Table("decoder", "images", "seconds", "peak memory")
    for row in rows:
        figures = (f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f} MB")
        table.add_row(row["decoder"], str(row["batch"]), *figures)
    console = Console()
    console.print(table)
    console.print(
        f"marfast: {facts['ratio']:.2f}x the {baseline}'s speed, "
        f"{facts['peak_memory_ratio']:.2f}x its peak memory; off by {difference:.1e}"
    )


if __name__ == "__main__":
    main()
