"""The picture of a speed–quality curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marfast.bench import plots
from marfast.bench.results import Row
from marfast.evaluation.curve import seconds_of

SHORT = {"num_iter": "K", "steps": "S"}


def plot(document: Mapping[str, Any], file: Path, *, force: bool = False) -> Path:
    """Of a curve's results, as they are written: distance against seconds of an image, with errors;
    whom nobody beats in both is joined. A colour for each dtype; what else is varied is named once.

    ImportError with what to install where matplotlib is missing.
    """
    plots.require()
    from matplotlib import pyplot
    from matplotlib.patheffects import withStroke

    rows, distance = document["rows"], document["distance"]
    what = f"{document['model']}: {rows[0]['images']:,} images a setting"
    title = plots.titled(what, rows, document["machine"])
    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for dtype, look in zip(dict.fromkeys(row["dtype"] for row in rows), plots.OURS, strict=False):
        mine = [row for row in rows if row["dtype"] == dtype]
        times = [row["seconds_an_image_p20_p50_p80"] for row in mine]
        figures = [row["figures"][distance] for row in mine]
        axis.errorbar(
            [middle for _, middle, _ in times],
            [figure["value"] for figure in figures],
            [figure["error"] or 0.0 for figure in figures],
            [
                [middle - low for low, middle, _ in times],
                [top - middle for _, middle, top in times],
            ],
            fmt="o",
            markersize=4,
            color=look.colour,
            elinewidth=0.8,
            label=dtype,
        )
    front = [row for row in rows if row["front"]]
    ends = [(seconds_of(row), row["figures"][distance]["value"]) for row in front]
    axis.plot(*zip(*ends, strict=True), color="black", linewidth=1, zorder=0, label="front")
    named = {label(row, rows): row for row in reversed(rows)}  # the fastest of each
    for name, row in named.items():
        place = (seconds_of(row), row["figures"][distance]["value"])
        text = axis.annotate(name, place, (4, -11), textcoords="offset points", fontsize=7)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axis.set(xscale="log", xlabel="seconds an image", ylabel=distance)
    axis.set_title(title, fontsize=9)
    plots.plain_ticks(axis.xaxis)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return plots.save(figure, file, force=force)


def label(row: Row, rows: Sequence[Row]) -> str:
    """What is varied, and isn't told by a colour: "K 6, S 25"."""
    measured = ("dtype", "images", "seconds_an_image_p20_p50_p80", "figures", "front")
    varied = [
        name for name in row if name not in measured and len({str(r[name]) for r in rows}) > 1
    ]
    return ", ".join(f"{SHORT.get(name, name)} {row[name]}" for name in varied) or row["dtype"]
