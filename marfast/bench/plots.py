"""Pictures of measured rows."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marfast.bench.images import PHASES
from marfast.bench.results import Row
from marfast.files import replacing

COLOURS = {
    "eager": "#9e9e9e",
    "autocast": "#c2a35a",
    "compile": "#8d6e63",
    "original": "#616161",
}
OURS = ("#1f77b4", "#d6604d", "#4d9221", "#762a83")


def require() -> None:
    """ImportError with what to install where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")


def file_names(workload: str, suffix: str = "") -> dict[str, str]:
    """Of each kind of picture of a workload, which may be a file of any name."""
    name = re.sub(r"[^\w.-]+", "-", Path(workload).stem).strip("-.") or "model"
    kinds = {"speed": "", "throughput": "-throughput", "phases": "-phases"}
    return {kind: f"{name}{ending}{suffix}.png" for kind, ending in kinds.items()}


def plot(rows: Sequence[Row], folder: Path, suffix: str = "", *, force: bool = False) -> list[Path]:
    """Writes what the rows show into a folder: time a step and throughput of heads, phases of
    images and, of several batches, their throughput. The suffix ends the files' names. What is
    there is replaced only if forced.

    ImportError with what to install where matplotlib is missing.
    """
    require()
    heads = [row for row in rows if "rows" in row]
    images = [row for row in rows if "phases" in row]
    written = []
    for name in dict.fromkeys(row["workload"] for row in heads):
        mine = [row for row in heads if row["workload"] == name]
        files = {kind: folder / file for kind, file in file_names(name, suffix).items()}
        written.append(save(_speed(name, mine), files["speed"], force=force))
        written.append(save(_throughput(name, mine), files["throughput"], force=force))
    for name in dict.fromkeys(row["workload"] for row in images):
        mine = [row for row in images if row["workload"] == name]
        files = {kind: folder / file for kind, file in file_names(name, suffix).items()}
        written.append(save(_phases(mine), files["phases"], force=force))
        if len({row["batch"] for row in mine}) > 1:
            written.append(save(_throughput(name, mine), files["throughput"], force=force))
    return written


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    found = dict(COLOURS)
    ours = [who for who in dict.fromkeys(row["who"] for row in rows) if who not in found]
    return found | dict(zip(ours, OURS, strict=False))


def _speed(name: str, rows: Sequence[Row]) -> Any:
    """Milliseconds a step against R, with p20 to p80, and the floor of float32."""
    from matplotlib import pyplot

    colours = _colours(rows)
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for who in dict.fromkeys(row["who"] for row in rows):
        mine = sorted((row for row in rows if row["who"] == who), key=lambda row: row["rows"])
        x = [row["rows"] for row in mine]
        low, middle, high = zip(*(row["ms_a_step_p20_p50_p80"] for row in mine), strict=True)
        axis.plot(x, middle, marker="o", markersize=4, color=colours[who], label=who)
        axis.fill_between(x, low, high, color=colours[who], alpha=0.2, linewidth=0)
    known = [row for row in rows if "floor_ms_a_step" in row]  # earlier versions' rows have none
    floors = sorted({(row["rows"], row["floor_ms_a_step"], row["dtype"]) for row in known})
    for dtype, style in (("float32", "--"), ("bfloat16", ":")):
        points = [(r, floor) for r, floor, kind in floors if kind == dtype]
        if points:
            axis.plot(*zip(*points, strict=True), style, color="black", label=f"floor, {dtype}")
    axis.set_xscale("log", base=2)
    axis.set(yscale="log", xlabel="rows R", ylabel="milliseconds a step", title=name)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.grid(which="both", alpha=0.2)
    axis.legend(fontsize=8)
    return figure


def _throughput(name: str, rows: Sequence[Row]) -> Any:
    """Tokens a second of a head, or images a second, against how many are computed at once."""
    from matplotlib import pyplot

    colours = _colours(rows)
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for who, iterations in dict.fromkeys((row["who"], row.get("iterations")) for row in rows):
        mine = [row for row in rows if (row["who"], row.get("iterations")) == (who, iterations)]
        x, speeds = zip(*sorted(map(_speeds, mine)), strict=True)
        low, middle, high = zip(*speeds, strict=True)
        axis.plot(x, middle, marker="o", markersize=4, color=colours[who], label=who)
        axis.fill_between(x, low, high, color=colours[who], alpha=0.2, linewidth=0)
    what = "images" if "batch" in rows[0] else "tokens"
    axis.set_xscale("log", base=2)
    axis.set(yscale="log", xlabel=f"{what} at once", ylabel=f"{what} a second", title=name)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.grid(which="both", alpha=0.2)
    axis.legend(fontsize=8)
    return figure


def _speeds(row: Row) -> tuple[int, list[float]]:
    """How many at once, and how many a second: at p80, p50 and p20 of the time."""
    if "batch" in row:
        return row["batch"], [row["batch"] / s for s in reversed(row["seconds_p20_p50_p80"])]
    tokens = max(1, row["rows"] // 2)
    times = reversed(row["ms_a_step_p20_p50_p80"])
    return tokens, [1e3 * tokens / (ms * row["steps"]) for ms in times]


def _phases(rows: Sequence[Row]) -> Any:
    """Seconds of each phase for one image, stacked, a bar for each contender; of several batches
    the smallest and the largest."""
    from matplotlib import pyplot

    batches = [row["batch"] for row in rows]
    several = min(batches) < max(batches)
    rows = [row for row in rows if row["batch"] in (min(batches), max(batches))]
    labels = [
        f"K = {row['iterations']}"
        + (f", B = {row['batch']}" if several else "")
        + f": {row['who']}"
        for row in rows
    ]
    figure, axis = pyplot.subplots(figsize=(8, 0.9 + 0.33 * len(rows)), layout="constrained")
    left = [0.0] * len(rows)
    palette = dict(zip(PHASES, ("#4575b4", "#91bfdb", "#d73027", "#999999"), strict=True))
    if any("transformers" in row["phases"] for row in rows):  # encoder and decoder in one
        palette = {"transformers": "#7497c8", **palette}
    for phase, colour in palette.items():
        widths = [row["phases"].get(phase, 0.0) / row["batch"] for row in rows]
        axis.barh(labels, widths, left=left, color=colour, label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_xlim(0, 1.03 * max(left))
    axis.invert_yaxis()
    axis.set(xlabel="seconds an image", title=rows[0]["workload"])
    axis.legend(fontsize=8, loc="lower right")
    return figure


def save(figure: Any, file: Path, *, force: bool = False) -> Path:
    """As PNG; the figure is closed. What is there is replaced only if forced."""
    from matplotlib import pyplot

    with replacing(file, force=force) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
    pyplot.close(figure)
    return file
