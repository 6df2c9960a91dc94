"""What the GPU plan predicts for MAR's heads: `table`, `plot`, and docs/gpu_plan.md when run.

Prediction, not measured: nothing here has run on a GPU.
"""

from pathlib import Path
from typing import Any

import torch

from marfast.ops.head import HeadShape
from marfast.ops.plan import gpu_profiles, head_plan

NOTE = "prediction, not measured"
HEADS = {
    "MAR-B": HeadShape(16, 768, 1024, 6, 256),
    "MAR-L": HeadShape(16, 1024, 1280, 8, 256),
    "MAR-H": HeadShape(16, 1280, 1536, 12, 256),
}
ROWS = tuple(2**i for i in range(13))


def table(
    rows: tuple[int, ...] = ROWS, dtype: torch.dtype = torch.bfloat16, steps: int = 100
) -> list[dict[str, Any]]:
    """One entry for each head, GPU and number of rows: the plan's fields; times in seconds."""
    return [
        {"head": name, "gpu": gpu.name, "rows": r, "note": NOTE}
        | head_plan(r, shape, gpu, dtype, steps)._asdict()
        for name, shape in HEADS.items()
        for gpu in gpu_profiles().values()
        for r in rows
    ]


def plot(entries: list[dict[str, Any]], path: str | Path) -> None:
    """Predicted time and floor over rows, a panel for each head."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for axis, head in zip(figure.subplots(1, len(HEADS), sharey=True), HEADS, strict=True):
        for i, gpu in enumerate(gpu_profiles()):
            mine = [e for e in entries if (e["head"], e["gpu"]) == (head, gpu)]
            at = [e["rows"] for e in mine]
            axis.loglog(at, [1e3 * e["time"] for e in mine], color=f"C{i}", label=gpu)
            axis.loglog(at, [1e3 * e["floor"] for e in mine], color=f"C{i}", linestyle=":")
        axis.set(title=head, xlabel="rows")
    figure.axes[0].set_ylabel("ms for 100 steps; dotted: floor")
    figure.axes[0].legend()
    figure.suptitle(f"ddpm_sample in bfloat16: {NOTE}")
    figure.savefig(path)


def markdown(entries: list[dict[str, Any]]) -> str:
    few = [e for e in entries if e["regime"] == "tall" and e["utilisation"] < 0.8]
    lines = [
        "# The GPU's plan",
        "",
        f"**{NOTE.capitalize()}.** Written by `python -m benchmarks.predict`:"
        " csrc/cuda/plan.h's model"
        " for bfloat16 and 100 steps. Constants of a device are its data sheet's, scaled."
        " P x Q are the"
        " row and column groups; SMs is the work over the SMs times the most work that one has.",
        "",
        f"Persistent plans give every SM at least 80 % of its share. {len(few)} of"
        f" {len(entries)} lines"
        " are below: all of them tall, where the tiles are the library's: a whole number of"
        " them makes waves that leave SMs idle (MAR-L's 1280 columns are 10 tiles of 128, which"
        " divide neither 108, 114 nor 132), and the predicted time is nonetheless the smallest.",
        "",
        "| head | GPU | rows | regime | P x Q | row tile | weights that stay | SMs | ms |"
        " floor, ms |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for e in entries:
        cells = (
            *(e["head"], e["gpu"], e["rows"], e["regime"]),
            f"{e['row_groups']} x {e['column_groups']}" if e["row_groups"] else "",
            *(e["row_tile"] or "", e["stationary"] if e["row_groups"] else ""),
            *(f"{e['utilisation']:.0%}", f"{1e3 * e['time']:.2f}", f"{1e3 * e['floor']:.2f}"),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path("docs/gpu_plan.md").write_text(markdown(table()), encoding="utf-8")
