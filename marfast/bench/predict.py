"""What the GPU's plan (csrc/cuda/plan.h) predicts for MAR's heads. Nothing here is measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from marfast.files import replacing
from marfast.ops.ddpm_sample.plan import gpu_profiles, head_plan
from marfast.ops.head import HeadShape

NOTE = "prediction, not measured"
HEADS = {
    "MAR-B": HeadShape(16, 768, 1024, 6, 256),
    "MAR-L": HeadShape(16, 1024, 1280, 8, 256),
    "MAR-H": HeadShape(16, 1280, 1536, 12, 256),
}
ROWS = tuple(2**i for i in range(13))


def table(
    heads: Sequence[str] = tuple(HEADS),
    rows: Sequence[int] = ROWS,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 100,
) -> list[dict[str, Any]]:
    """One entry for each head, GPU and number of rows: the plan's fields; times in seconds."""
    return [
        {"head": name, "gpu": gpu.name, "rows": r, "steps": steps, "note": NOTE}
        | head_plan(r, HEADS[name], gpu, dtype, steps)._asdict()
        for name in heads
        for gpu in gpu_profiles().values()
        for r in rows
    ]


def plot(entries: list[dict[str, Any]], path: Path, *, force: bool = False) -> None:
    """Predicted time and floor over rows, a panel for each head, as PNG. What is
    there is replaced only if forced. ImportError without matplotlib."""
    from matplotlib.figure import Figure

    heads = list(dict.fromkeys(entry["head"] for entry in entries))
    figure = Figure(figsize=(1 + 4 * len(heads), 4), layout="constrained")
    axes = figure.subplots(1, len(heads), sharey=True, squeeze=False)[0]
    for axis, head in zip(axes, heads, strict=True):
        for i, gpu in enumerate(gpu_profiles()):
            mine = [e for e in entries if (e["head"], e["gpu"]) == (head, gpu)]
            at = [e["rows"] for e in mine]
            axis.loglog(at, [1e3 * e["time"] for e in mine], color=f"C{i}", label=gpu)
            axis.loglog(at, [1e3 * e["floor"] for e in mine], color=f"C{i}", linestyle=":")
        axis.set(title=head, xlabel="rows")
    figure.axes[0].set_ylabel(f"ms for {entries[0]['steps']} steps; dotted: floor")
    figure.axes[0].legend()
    figure.suptitle(f"ddpm_sample in bfloat16: {NOTE}")
    with replacing(path, force=force) as unfinished:
        figure.savefig(unfinished, format="png")
