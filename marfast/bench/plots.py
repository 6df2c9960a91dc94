"""Pictures of measured rows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from marfast.bench.results import Row
from marfast.files import replacing

FORMATS = ("png", "svg", "pdf")


class Look(NamedTuple):
    """Of a contender's line."""

    colour: str
    line: Any
    marker: str


THEIRS = {
    "eager": Look("#4d4d4d", "--", "s"),
    "autocast": Look("#b8860b", "-.", "D"),
    "compile": Look("#7b4b3a", ":", "v"),
    "original": Look("#6a51a3", (0, (3, 1, 1, 1)), "X"),
}
OURS = (
    *(Look("#0b62b0", "-", "o"), Look("#cc3311", "-", "^"), Look("#117733", "-", "P")),
    *(Look("#882299", "-", "*"), Look("#009988", "-", "p"), Look("#ee7733", "-", "h")),
)
PHASES = {
    "transformers": "#7497c8",  # encoder and decoder in one
    "encoder": "#4575b4",
    "decoder": "#91bfdb",
    "head": "#d73027",
    "vae": "#fdae61",
    "host": "#999999",
}


def require() -> None:
    """ImportError with what to install where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")


def file_names(workload: str, suffix: str = "") -> dict[str, str]:
    """Of each kind of picture of a workload, which may be a file of any name; without the
    format's ending."""
    name = re.sub(r"[^\w.-]+", "-", Path(workload).stem).strip("-.") or "model"
    kinds = {"speed": "", "throughput": "-throughput", "phases": "-phases"}
    return {kind: f"{name}{ending}{suffix}" for kind, ending in kinds.items()}


def plot(
    rows: Sequence[Row],
    folder: Path,
    suffix: str = "",
    *,
    machine: Mapping[str, Any] | None = None,
    formats: Sequence[str] = FORMATS,
    force: bool = False,
) -> list[Path]:
    """Writes what the rows show into a folder: time a step, speed-up and throughput of heads,
    phases of images and, of several batches, their throughput. The suffix ends the files' names.
    `machine` is what the rows were measured on, as their file says it. What is there is replaced
    only if forced.

    ImportError with what to install where matplotlib is missing.
    """
    require()
    written: list[Path] = []
    for name in dict.fromkeys(row["workload"] for row in rows):
        mine = [row for row in rows if row["workload"] == name]
        title = titled(name, mine, machine or {})
        figures = {}
        if "rows" in mine[0]:
            figures["speed"] = _speed(title, mine)
            figures["throughput"] = _throughput(title, mine)
        if "phases" in mine[0]:
            figures["phases"] = _phases(title, mine)
            if len({row["batch"] for row in mine}) > 1:
                figures["throughput"] = _throughput(title, mine)
        for kind, figure in figures.items():
            stem = file_names(name, suffix)[kind]
            written += _save_as(figure, [folder / f"{stem}.{ending}" for ending in formats], force)
    return written


def titled(name: str, rows: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """The workload, then what it was measured on, in which dtypes, and when."""
    dtypes = " and ".join(sorted({row["dtype"] for row in rows}, reverse=True))
    threads = f"{machine['threads']} threads" if "threads" in machine else ""
    place = machine.get("gpus", [machine.get("processor", "")])[0]
    told = (place, threads, dtypes, machine.get("date", ""))
    return f"{name}\n{', '.join(filter(None, told))}"


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    ours = [who for who in dict.fromkeys(row["who"] for row in rows) if who not in THEIRS]
    return THEIRS | dict(zip(ours, OURS, strict=False))


def _lines(
    axis: Any, who: str, look: Look, points: Iterable[tuple[float, Sequence[float]]]
) -> None:
    """A contender's medians, and p20 to p80 round them."""
    x, times = zip(*sorted(points), strict=True)
    low, middle, high = zip(*times, strict=True)
    style: dict[str, Any] = {"linestyle": look.line, "marker": look.marker, "markersize": 4.5}
    axis.plot(x, middle, color=look.colour, label=who, linewidth=1.6, **style)
    axis.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _finish(axis: Any, x: Iterable[float], **labels: Any) -> None:
    """Plain ticks at what was measured, on logarithmic axes."""
    from matplotlib.ticker import NullFormatter

    ticks = sorted(set(x))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    plain_ticks(axis.yaxis)
    axis.set(**labels)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Any) -> None:
    """Of a logarithmic axis: 0.02, 0.05, 0.1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axis: Any) -> None:
    """Below everything, so over no data."""
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    columns = min(4, len(found))
    place = {"loc": "outside lower center", "frameon": False, "fontsize": 8}
    figure.legend(found.values(), found, ncols=columns, **place)


def _speed(title: str, rows: Sequence[Row]) -> Any:
    """Milliseconds a step against R with the floors, and beside it how many times faster than
    eager."""
    from matplotlib import pyplot

    looks = _looks(rows)
    figure, (times, ratios) = pyplot.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for who in dict.fromkeys(row["who"] for row in rows):
        mine = [row for row in rows if row["who"] == who]
        points = [(row["rows"], row["ms_a_step_p20_p50_p80"]) for row in mine]
        _lines(times, who, looks[who], points)
        compared = [row for row in mine if who != "eager" and "eager" in row["ratio_to"]]
        known = [(row["rows"], row["ratio_to"]["eager"]) for row in compared]
        if known:
            _lines(ratios, who, looks[who], [(x, [ratio] * 3) for x, ratio in known])
    of_floor = [row for row in rows if "floor_ms_a_step" in row]  # earlier versions' rows have none
    for dtype, style in (("float32", (0, (4, 2))), ("bfloat16", (0, (1, 2)))):
        floors = {row["rows"]: row["floor_ms_a_step"] for row in of_floor if row["dtype"] == dtype}
        if floors:
            line = sorted(floors.items())
            label = f"floor, {dtype}"
            times.plot(*zip(*line, strict=True), linestyle=style, color="black", label=label)
    ratios.axhline(1, color=looks["eager"].colour, linestyle="--", linewidth=1)
    x = [row["rows"] for row in rows]
    _finish(times, x, xlabel="rows R", ylabel="milliseconds a step")
    _finish(ratios, x, xlabel="rows R", ylabel="times as fast as eager")
    _legend(figure, times)
    return figure


def _throughput(title: str, rows: Sequence[Row]) -> Any:
    """Tokens a second of a head, or images a second, against how many are computed at once; a panel
    for each number of iterations."""
    from matplotlib import pyplot

    looks = _looks(rows)
    counts = [*dict.fromkeys(row.get("iterations") for row in rows)]
    size = (5.2 * len(counts) + 1, 4.4)
    figure, axes = pyplot.subplots(
        1, len(counts), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    figure.suptitle(title, fontsize=10)
    what = "images" if "batch" in rows[0] else "tokens"
    for axis, count in zip(axes[0], counts, strict=True):
        here = [row for row in rows if row.get("iterations") == count]
        for who in dict.fromkeys(row["who"] for row in here):
            mine = [row for row in here if row["who"] == who]
            _lines(axis, who, looks[who], map(_speeds, mine))
        x = [_speeds(row)[0] for row in here]
        _finish(axis, x, xlabel=f"{what} at once", ylabel=f"{what} a second")
        axis.set_title("" if count is None else f"K = {count}", fontsize=9)
    _legend(figure, axes[0][0])
    return figure


def _speeds(row: Row) -> tuple[int, list[float]]:
    """How many at once, and how many a second: at p80, p50 and p20 of the time."""
    if "batch" in row:
        return row["batch"], [row["batch"] / s for s in reversed(row["seconds_p20_p50_p80"])]
    tokens = max(1, row["rows"] // 2)
    times = reversed(row["ms_a_step_p20_p50_p80"])
    return tokens, [1e3 * tokens / (ms * row["steps"]) for ms in times]


def _phases(title: str, rows: Sequence[Row]) -> Any:
    """Seconds of each phase for one image, stacked, a bar for each contender and a mark where each
    phase's floor is; a panel for each K, and of several batches for the smallest and largest."""
    from matplotlib import pyplot

    batches = [row["batch"] for row in rows]
    ends = (min(batches), max(batches))
    rows = [row for row in rows if row["batch"] in ends]
    cases = [*dict.fromkeys((row["iterations"], row["batch"]) for row in rows)]
    heights = [sum((row["iterations"], row["batch"]) == case for row in rows) for case in cases]
    figure, axes = pyplot.subplots(
        len(cases),
        1,
        figsize=(8, 1.3 + sum(0.32 * height + 0.55 for height in heights)),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    figure.suptitle(title, fontsize=10)
    for axis, case in zip(axes[:, 0], cases, strict=True):
        mine = [row for row in rows if (row["iterations"], row["batch"]) == case]
        _bars(axis, mine)
        axis.set_title(f"K = {case[0]}, B = {case[1]}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("seconds an image")
    _legend(figure, axes[0, 0])
    return figure


def _bars(axis: Any, rows: Sequence[Row]) -> None:
    labels, left = [row["who"] for row in rows], [0.0] * len(rows)
    present = [phase for phase in PHASES if any(phase in row["phases"] for row in rows)]
    for phase in present:
        widths = [row["phases"].get(phase, 0.0) / row["batch"] for row in rows]
        axis.barh(labels, widths, left=left, color=PHASES[phase], label=phase, height=0.7)
        for place, row in enumerate(rows):
            if phase in row.get("floors", {}):
                at = left[place] + row["floors"][phase] / row["batch"]
                line = {"color": "black", "linewidth": 1.5, "label": "floor of the phase"}
                axis.plot([at, at], [place - 0.35, place + 0.35], **line)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, (row, end) in enumerate(zip(rows, left, strict=True)):
        ratio = row["ratio_to"].get("eager")
        faster = "" if row["who"] == "eager" or ratio is None else f", {ratio:.1f}x"
        axis.text(end + 0.01 * max(left), place, f"{end:.3g} s{faster}", va="center", fontsize=8)
    axis.set_xlim(0, 1.16 * max(left))
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Any, file: Path, *, force: bool = False) -> Path:
    """In the format of the file's suffix; the figure is closed. What is there is replaced only if
    forced."""
    return _save_as(figure, [file], force)[0]


def _save_as(figure: Any, files: Sequence[Path], force: bool) -> list[Path]:
    from matplotlib import pyplot

    for file in files:
        with replacing(file, force=force) as unfinished:
            figure.savefig(unfinished, dpi=150, format=file.suffix.removeprefix("."))
    pyplot.close(figure)
    return [*files]
