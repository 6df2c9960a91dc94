"""A training step of MAR: the original's own code beside itself under `accelerate(training=True)`.

    python -m benchmarks.studies.training --original path/to/mar [steps | curves]

steps: MAR-B with the paper's head (6 blocks of 1024) on random latents, batch 8: forward, backward,
clipping at 3, AdamW. Every contender is a process of its own, which takes a step when it is told
to, so that their steps take turns. Each has one thread, and its time is the processor's, which what
else a machine is busy with moves little. Memory is the largest resident set since before a step,
and what of it a step takes beyond what is held between steps (weights and the optimizer's state).
Contenders differ in whether the loss is accelerated, and in which transformer blocks compute their
activations again in backward: none, half of the decoder's, or all (the original's own
grad_checkpointing).

curves: the loss of 300 steps from the same weights, seeds and data, a model of the embedded one's
geometry on Fashion-MNIST.

Writes benchmarks/results/training-<instruction set>.json, of which tables/ and pictures.py make
docs/training.md's figures.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

import marfast
from benchmarks.studies import RESULTS, ROOT, instruction_set
from marfast.bench.memory import peak_mb, resident_mb, restart_peak
from marfast.bench.results import Row, commit, read_document, write_rows
from marfast.checkpoints import get_preset
from marfast.drop_in.install import installed
from marfast.ops import choice
from marfast.training.fashion_mnist import read_fashion_mnist, to_model_range
from marfast.verifying import original
from marfast.verifying.runner import load_original, patch_process

CONTENDERS = {
    "original": (False, "none"),
    "accelerated": (True, "none"),
    "accelerated, half of the decoder again": (True, "half"),
    "original, all blocks again": (False, "all"),
    "accelerated, all blocks again": (True, "all"),
}
"""Whether the loss is accelerated; which blocks compute their activations again in backward."""

BATCH = 8


def again(module: Any, which: str) -> None:
    """Compute activations of these transformer blocks again in backward."""
    if which == "all":
        module.grad_checkpointing = True
    elif which == "half":
        for block in module.decoder_blocks[::2]:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def loss_of(module: Any, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By whom it is to be computed, or nothing is measured."""
    accelerated = "forward_loss" in installed(module)
    with choice.used() as used:
        loss: torch.Tensor = module(images, labels)
    if accelerated != ("diffusion_loss_gradients" in used):
        raise SystemExit("the loss was not computed by whom it should be; nothing was measured")
    return loss


class Training:
    """A MAR-B in training."""

    def __init__(self, implementation: Any, contender: str, dtype: str) -> None:
        accelerated, which = CONTENDERS[contender]
        torch.manual_seed(0)
        self.dtype = dtype
        sizes = {"diffloss_d": 6, "diffloss_w": 1024, "diffusion_batch_mul": 4}
        self.module = implementation.factories["base"](**sizes).train()
        again(self.module, which)
        if accelerated:
            marfast.accelerate(self.module, training=True)
        groups = self.module.parameters()
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))
        generator = torch.Generator().manual_seed(1)
        self.latents = torch.randn(BATCH, 16, 16, 16, generator=generator)
        self.labels = torch.randint(0, 1000, (BATCH,), generator=generator)

    def step(self, number: int) -> float:
        """The loss; the numbers that are drawn are those of this step for every contender."""
        torch.manual_seed(number)
        np.random.seed(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            loss = loss_of(self.module, self.latents, self.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 3.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss)


def worker(implementation: Any, contender: str, dtype: str) -> None:
    """Answers each line, the number of a step, by what it took."""
    torch.set_num_threads(1)
    training = Training(implementation, contender, dtype)
    print("ready", flush=True)
    for line in sys.stdin:
        restart_peak()
        held = resident_mb()
        start = time.process_time()
        loss = training.step(int(line))
        seconds = time.process_time() - start
        found = {"loss": loss, "seconds": seconds, "held_mb": held, "peak_mb": peak_mb()}
        print(json.dumps(found), flush=True)


class Process:
    """A contender, elsewhere."""

    def __init__(self, options: argparse.Namespace, contender: str, dtype: str) -> None:
        command = [sys.executable, "-m", "benchmarks.studies.training"]
        command += ["--original", str(options.original), "--worker", contender, dtype]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)  # type: ignore[call-overload]
        assert self.process.stdout.readline() == "ready\n"

    def step(self, number: int) -> dict[str, float]:
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def steps(options: argparse.Namespace) -> None:
    """Times and memory, contenders in turn."""
    names = options.contenders or list(CONTENDERS)
    for dtype in options.dtypes:
        processes = {name: Process(options, name, dtype) for name in names}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(options.rounds + 1):
            for name in names[:: -1 if number % 2 else 1]:
                taken = processes[name].step(number)
                print(f"{dtype}, step {number}, {name}: {taken}", flush=True)
                found[name].append(taken)
                if number or not options.rounds:
                    keep(options, summary(name, dtype, found[name]))
        for process in processes.values():
            process.end()


def keep(options: argparse.Namespace, row: Row) -> None:
    """Into the file, where rows of other dtypes and contenders stay, in the table's order."""
    file = RESULTS / f"training-{instruction_set()}.json"
    document = read_document(file)
    rows = {(r["dtype"], r["contender"]): r for r in (*document.get("rows", []), row)}
    order = [(dtype, name) for dtype in ("float32", "bfloat16") for name in CONTENDERS]
    facts = {"batch": BATCH, "threads": 1}
    facts |= {key: document[key] for key in ("curves", "curves_commit") if key in document}
    facts |= {"commit": commit(), "original_commit": original.commit(options.original)}
    write_rows(file, [rows[key] for key in order if key in rows], force=True, **facts)


def summary(name: str, dtype: str, taken: list[dict[str, float]]) -> Row:
    """Of a contender's steps, but for the first, if there are others."""
    counted = taken[1:] or taken
    seconds = [step["seconds"] for step in counted]
    peak = max(step["peak_mb"] for step in taken)
    return {
        "contender": name,
        "dtype": dtype,
        "seconds": [round(s, 3) for s in seconds],
        "seconds_median": round(float(np.median(seconds)), 3),
        "peak_mb": round(peak, 1),
        "step_mb": round(max(step["peak_mb"] - step["held_mb"] for step in counted), 1),
        "losses": [step["loss"] for step in taken],
    }


def curve(implementation: Any, accelerated: bool, count: int) -> list[float]:
    """The loss of each step on Fashion-MNIST."""
    torch.manual_seed(0)
    module = implementation.mar(**get_preset("fashion-mnist").architecture.arguments()).train()
    if accelerated:
        marfast.accelerate(module, training=True)
    images, labels = read_fashion_mnist("train")
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-4, betas=(0.9, 0.95))
    order = np.random.RandomState(0).permutation(len(images))
    torch.manual_seed(1)
    np.random.seed(1)
    losses = []
    for number in range(count):
        batch = order[8 * number : 8 * (number + 1)]
        classes = torch.from_numpy(labels[batch]).long()
        loss = loss_of(module, to_model_range(images[batch]), classes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss))
    return losses


def curves(options: argparse.Namespace) -> None:
    """Both curves, into the file and onto a picture."""
    implementation = load_original(options.original)
    found = {
        name: curve(implementation, name == "accelerated", options.count)
        for name in ("original", "accelerated")
    }
    apart = np.abs(np.subtract(*found.values()))
    print(f"largest difference {apart.max():.3g}, of the last 50 steps {apart[-50:].max():.3g}")
    file = RESULTS / f"training-{instruction_set()}.json"
    document = read_document(file)
    facts = {k: v for k, v in document.items() if k not in ("machine", "rows", "curves")}
    facts |= {"curves_commit": commit(), "original_commit": original.commit(options.original)}
    write_rows(file, document.get("rows", []), force=True, **facts, curves=found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, required=True, help="a checkout of LTH14/mar")
    parser.add_argument("part", nargs="?", choices=("steps", "curves"), help="by default both")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS)
    rounds = "steps of each contender after the first, which then doesn't count"
    parser.add_argument("--rounds", type=int, default=2, help=rounds)
    parser.add_argument("--count", type=int, default=300, help="steps of the curves")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.original = original.require_checkout(options.original)
    original.require_packages()
    if options.worker:
        patch_process()
        worker(load_original(options.original), *options.worker)
        return
    if options.part != "curves":
        steps(options)
    if options.part != "steps":
        patch_process()
        curves(options)


if __name__ == "__main__":
    main()
