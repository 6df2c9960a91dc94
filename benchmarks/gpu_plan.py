"""Writes docs/gpu_plan.md: what the GPU's plan predicts. Nothing in it is measured."""

from pathlib import Path
from typing import Any

from marfast.bench.predict import NOTE, table


def markdown(entries: list[dict[str, Any]]) -> str:
    few = [e for e in entries if e["regime"] == "tall" and e["utilisation"] < 0.8]
    lines = [
        "# The GPU's plan",
        "",
        f"**{NOTE.capitalize()}.** Written by `python -m benchmarks.gpu_plan`:"
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
