"""The original's own `sample_tokens`, before and after `marfast.accelerate`, in one process.

    python -m benchmarks.studies.drop_in --original path/to/mar

MAR-B at full size: one image, 24 iterations, 50 steps, guidance 2.9, float32, the same seeds; twice
as it is and twice accelerated (a twin of the same parameters), in turn. Then through
backend="reference", which must be bit-equal, and what that costs. MAR-L and MAR-H with two blocks
in encoder and decoder and the whole head: differences alone. Writes
benchmarks/results/drop-in-<instruction set>.json.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import marfast
from benchmarks.studies import RESULTS, instruction_set
from benchmarks.studies.twin import twin
from marfast.bench.results import commit, write_rows
from marfast.bench.timing import in_turn
from marfast.checkpoints import get_preset
from marfast.ops import choice
from marfast.verifying import original
from marfast.verifying.runner import load_original, patch_process

LABEL = torch.tensor([207])


def make(implementation: Any, preset: str, steps: int, blocks: int | None) -> Any:
    """The original's model at the paper's sizes, with random weights near the identity's scale."""
    what = get_preset(preset).architecture
    factory = implementation.factories[preset.removeprefix("mar_")]
    sizes = {"diffloss_d": what.diffloss_d, "diffloss_w": what.diffloss_w}
    module = factory(**sizes, num_sampling_steps=str(steps)).eval()
    if blocks is not None:
        module.encoder_blocks = module.encoder_blocks[:blocks]
        module.decoder_blocks = module.decoder_blocks[:blocks]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            norm = name.endswith(("norm1.weight", "norm2.weight"))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02 + norm)
    return module


def sample(module: Any, iterations: int) -> torch.Tensor:
    np.random.seed(0)
    torch.manual_seed(0)
    with torch.no_grad():
        tokens: torch.Tensor = module.sample_tokens(1, num_iter=iterations, cfg=2.9, labels=LABEL)
    return tokens


def relative(tokens: torch.Tensor, expected: torch.Tensor) -> float:
    return float((tokens - expected).abs().max() / expected.std())


def compare(module: Any, iterations: int, rounds: int, backend: str) -> dict[str, Any]:
    """The module as it is and accelerated, in turn."""
    modules = {"original": module, "accelerated": marfast.accelerate(twin(module), backend)}
    runs = {who: partial(sample, of, iterations) for who, of in modules.items()}
    expected = runs["original"]()
    with choice.used() as used:
        difference = relative(runs["accelerated"](), expected)
    if "ddpm_sample" not in used:
        raise SystemExit("the original's own code ran in its place; nothing was measured")
    found = {"iterations": iterations, "backend": backend, "difference": difference}
    if rounds:
        timing = in_turn(runs, rounds)
        found |= {
            "rounds": rounds,
            "original_seconds_p20_p50_p80": timing.percentiles("original"),
            "accelerated_seconds_p20_p50_p80": timing.percentiles("accelerated"),
            "ratio": timing.ratio("original", "accelerated"),
            "others_took": timing.busy,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, required=True, help="a checkout of LTH14/mar")
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    checkout = original.require_checkout(options.original)
    original.require_packages()
    patch_process()
    implementation = load_original(checkout)

    base = make(implementation, "mar_base", options.steps, None)
    rows = [{"model": "mar_base"} | compare(base, options.iterations, options.rounds, "auto")]
    rows.append({"model": "mar_base"} | compare(base, 3, 5, "reference"))
    del base
    for preset in ("mar_large", "mar_huge"):
        module = make(implementation, preset, 10, blocks=2)
        rows.append({"model": preset, "blocks": 2} | compare(module, 4, 0, "auto"))
        del module

    table = Table(
        "model", "backend", "iterations", "original", "accelerated", "ratio", "difference"
    )
    for row in rows:
        times = [row.get(f"{name}_seconds_p20_p50_p80") for name in ("original", "accelerated")]
        table.add_row(
            *(row["model"], row["backend"], str(row["iterations"])),
            *("" if time is None else f"{time[1]:.1f} s" for time in times),
            f"{row['ratio']:.2f}x" if "ratio" in row else "",
            f"{row['difference']:.1e}",
        )
    Console().print(table)
    file = RESULTS / f"drop-in-{instruction_set()}.json"
    found = original.commit(checkout)
    write_rows(file, rows, force=True, commit=commit(), original_commit=found, steps=options.steps)


if __name__ == "__main__":
    main()
