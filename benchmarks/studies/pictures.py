"""Pictures of README and docs, from the raw results: nothing is measured.

python -m benchmarks.studies.pictures [--out FOLDER]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.ticker import LogLocator

from benchmarks.studies import IMAGES, RESULTS
from benchmarks.studies.quality.samplers import base_of, by_sampler
from benchmarks.studies.scaling import QUANTITIES, series
from benchmarks.studies.sources import MACHINES, UNITS, transformers
from marfast.bench.plots import OURS, plain_ticks, plot, save, titled
from marfast.bench.results import Row, read_document, read_rows
from marfast.evaluation import curve_plot

COLOURS = {"float32": "#1f77b4", "bfloat16": "#d6604d"}
SYMBOLS = {"rows": "R", "steps": "S", "width": "w", "depth": "d"}
SYMBOLS |= {"batch": "B", "iterations": "K", "threads": "n"}
PHASES = {"transformers": "#7497c8", "head": "#e08214"}
CONTENDERS = {
    "original": "original, float32",
    "eager": "plain PyTorch, float32",
    "compile": "torch.compile, float32",
    "autocast": "plain PyTorch, bfloat16 autocast",
    "marfast float32": "marfast, float32",
    "marfast bfloat16": "marfast, bfloat16",
}
TEXT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}


def image(document: dict[str, Any], isa: str, file: Path, iterations: int = 64) -> Path:
    """A bar for each contender: seconds for one image, and what of them the head takes."""
    rows = {row["who"]: row for row in document["rows"] if row["iterations"] == iterations}
    rows = {who: rows[who] for who in CONTENDERS if who in rows}
    seconds = [row["seconds_p20_p50_p80"][1] for row in rows.values()]
    of_transformers = [transformers(row) for row in rows.values()]
    of_head = [row["phases"]["head"] for row in rows.values()]
    figure, axis = pyplot.subplots(figsize=(8, 1.5 + 0.4 * len(rows)), layout="constrained")
    labels = [CONTENDERS[who] for who in rows]
    axis.barh(labels, of_transformers, color=PHASES["transformers"], label="transformers")
    axis.barh(labels, of_head, left=of_transformers, color=PHASES["head"], label="diffusion head")
    for place, (who, total) in enumerate(zip(rows, seconds, strict=True)):
        ratio = seconds[0] / total
        text = f"{total:.0f} s" + (f", {ratio:.1f}x" if who.startswith("marfast") else "")
        weight = "bold" if who.startswith("marfast") else "normal"
        end = of_transformers[place] + of_head[place]
        axis.text(end + 0.01 * max(seconds), place, text, va="center", weight=weight)
        axis.get_yticklabels()[place].set_fontweight(weight)
    first = next(iter(rows.values()))
    settings = f"{iterations} iterations, {first['steps']} steps, guidance {first['guidance']}"
    machine = MACHINES[isa][0].lower() + MACHINES[isa][1:]
    title = f"One image of MAR-B in float32 and bfloat16, {machine}"
    figure.suptitle(f"{title}\n{settings}", fontsize=11)
    axis.set(xlabel="seconds", xlim=(0, 1.14 * max(seconds)))
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=2, loc="outside lower center", frameon=False)
    return save(figure, file, force=True)


def scaling(document: dict[str, Any], workloads: Sequence[str], file: Path) -> Path:
    """A panel for each axis: medians with p20 to p80, the fitted line, the floor."""
    rows = [row for row in document["rows"] if row["workload"] in workloads]
    panels = list(dict.fromkeys((row["workload"], row["axis"]) for row in rows))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (3.7 * columns, 3.1 * lines + 0.5)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, squeeze=False)
    figure.set_layout_engine("constrained")
    figure.suptitle(titled("Time against sizes", rows, document["machine"]), fontsize=10)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    fits = {(fit["workload"], fit["axis"], fit["dtype"]): fit for fit in document["fits"]}
    for (workload, name), axis in zip(panels, axes.flat, strict=False):
        mine = [row for row in rows if (row["workload"], row["axis"]) == (workload, name)]
        for key, line in series(mine).items():
            panel(axis, line, fits.get(key))
        axis.set_title(f"{workload}: {fixed(mine, name)}", fontsize=9)
        axis.set(xlabel=f"{name} {SYMBOLS[name]}", ylabel=f"ms {UNITS[mine[0]['unit']]}")
    points = [pyplot.Line2D([], [], color=c, marker="o", linestyle="") for c in COLOURS.values()]
    styles = [pyplot.Line2D([], [], color="#555555", linestyle=style) for style in ("-", ":")]
    names = [*(f"{dtype}, p20 to p80" for dtype in COLOURS), "fit", "floor"]
    figure.legend([*points, *styles], names, ncols=4, loc="outside lower center", fontsize=9)
    return save(figure, file, force=True)


def fixed(rows: Sequence[Row], but: str) -> str:
    """The sizes that an axis leaves as they are."""
    found = {name: {row.get(name) for row in rows} for name in SYMBOLS if name != but}
    return ", ".join(
        f"{SYMBOLS[name]} = {values.pop()}"
        for name, values in found.items()
        if len(values) == 1 and None not in values
    )


def panel(axis: Any, line: Sequence[Row], fit: dict[str, Any] | None) -> None:
    """One series of a panel."""
    dtype, name = line[0]["dtype"], line[0]["axis"]
    colour = COLOURS[dtype]
    line = sorted(line, key=lambda row: row["x"])
    x = [row["x"] for row in line]
    low, middle, high = np.array([row["ms_p20_p50_p80"] for row in line]).T
    bars = [middle - low, high - middle]
    axis.errorbar(x, middle, bars, fmt="o", markersize=4, capsize=2, color=colour)
    if fit is not None:
        fine = np.geomspace(x[0], x[-1], 200)
        fitted = [fit["intercept"] + fit["slope"] * QUANTITIES[name][1](value) for value in fine]
        axis.plot(fine, fitted, color=colour, linewidth=1)
    axis.plot(x, [row["floor_ms"] for row in line], ":", color=colour, linewidth=1.4)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = apart(x)
    axis.set_xticks(ticks, labels=[str(tick) for tick in ticks], fontsize=8)
    bottom, top = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 500 else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.grid(alpha=0.25)


def apart(x: Sequence[int], share: float = 0.11) -> list[int]:
    """The largest of them, and those below it that are so far from each other on a logarithmic
    axis, as a share of it: their labels don't touch."""
    found = [x[-1]]
    for value in reversed(x[:-1]):
        if np.log(found[-1] / value) >= share * np.log(x[-1] / x[0]):
            found.append(value)
    return found[::-1]


def roofline(document: dict[str, Any], file: Path) -> Path:
    """Kernels under the roofs of arithmetic and of reading."""
    rows, limits = document["rows"], document["floors"]
    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    axis.set_title(titled("Ops under the roofs", rows, document["machine"]), fontsize=10)
    names = list(dict.fromkeys(row["op"] for row in rows))
    markers = dict(zip(names, "osD^vP*X", strict=False))
    for row in rows:
        x, y, colour = row["flops_a_byte"], row["gflops_a_second"], COLOURS[row["dtype"]]
        p20, p50, p80 = row["us_p20_p50_p80"]
        bars = [[y - y * p50 / p80], [y * p50 / p20 - y]]
        axis.errorbar(x, y, bars, fmt=markers[row["op"]], color=colour, markersize=6, linewidth=1)
        if row["op"] == "ddpm_sample":
            axis.annotate(row["case"].removeprefix("R = "), (x, y), (5, -9), **TEXT)
    for name, marker in markers.items():
        label = f"{name}, for R rows" if name == "ddpm_sample" else name
        axis.plot([], [], marker, color="#555555", label=label)
    for dtype, colour in COLOURS.items():
        axis.plot([], [], "s", color=colour, label=dtype)

    peaks = {dtype: rate / 1e9 for dtype, rate in limits["flops"].items()}
    top, intensities = max(peaks.values()), [row["flops_a_byte"] for row in rows]
    left, right = min(intensities) / 2, max(intensities) * 3
    axis.set(xscale="log", yscale="log", xlim=(left, right), ylim=(None, 2 * top))
    axis.set(xlabel="FLOP for a byte that has to be moved", ylabel="GFLOP/s")
    axis.grid(which="both", alpha=0.15)
    axis.legend(fontsize=8, loc="lower right")
    for dtype, peak in peaks.items():
        axis.axhline(peak, color=COLOURS[dtype], linewidth=1)
        text = f"{dtype} products, {peak:.0f} GFLOP/s"
        axis.annotate(text, (right, peak), (-4, 3), **TEXT, ha="right", color=COLOURS[dtype])
    figure.canvas.draw()  # so that the angle of a slanted roof on the page is known
    (x0, y0), (x1, y1) = axis.transData.transform([(1, 1), (10, 10)])
    angle = float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
    rates = {int(size): rate / 1e9 for size, rate in limits["bandwidth"].items()}
    cached = min(rates, key=lambda size: abs(size - (8 << 20)))
    for size, name in ((cached, f"a buffer of {cached >> 20} MB"), (max(rates), "memory")):
        rate = rates[size]
        start = max(left, axis.get_ylim()[0] / rate)
        axis.plot([start, top / rate], [rate * start, top], color="black", linewidth=1)
        at = start * 1.2, rate * start * 1.2
        text = f"{name}, {rate:.0f} GB/s"
        axis.annotate(text, at, (0, 3), **TEXT, rotation=angle, rotation_mode="anchor")
    return save(figure, file, force=True)


def quality_of_samplers(rows: Sequence[Row], file: Path) -> Path:
    """Accuracy and Fréchet distance against steps; what is near DDPM's hundred is shaded."""
    found = by_sampler(rows)
    base = base_of(found)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for (name, of_sampler), look in zip(found.items(), OURS, strict=False):
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker}
        line = sorted(of_sampler, key=lambda row: row["steps"])
        steps = [row["steps"] for row in line]
        axes[0].plot(steps, [100 * row["accuracy"] for row in line], label=name, **style)
        axes[1].plot(steps, [row["frechet_distance"] for row in line], **style)
    axes[0].axhspan(100 * base["accuracy"] - 1, 100, color="#555555", alpha=0.1)
    axes[1].axhspan(0, 1.1 * base["frechet_distance"], color="#555555", alpha=0.1)
    axes[0].set(ylabel="accuracy, %", ylim=(None, 100))
    axes[1].set(ylabel="Fréchet distance", ylim=(0, None))
    ticks = sorted({row["steps"] for of_sampler in found.values() for row in of_sampler})
    for axis in axes:
        axis.set(xlabel="steps", xscale="log")
        axis.set_xticks(ticks, labels=map(str, ticks))
        axis.minorticks_off()
    figure.legend(ncols=len(found), loc="outside lower center", frameon=False, fontsize=9)
    return save(figure, file, force=True)


def training(document: dict[str, Any], file: Path) -> Path:
    """The loss of each step, the original's and the accelerated one, one on top of the other."""
    figure, axis = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    styles = {
        "original": {"color": "#bbbbbb", "linewidth": 4},
        "accelerated": {"color": "#d6604d", "linewidth": 1},
    }
    for name, losses in document["curves"].items():
        axis.plot(range(1, len(losses) + 1), losses, label=name, **styles[name])
    axis.set(xlabel="step", ylabel="loss", yscale="log")
    plain_ticks(axis.yaxis)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return save(figure, file, force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES)
    out = parser.parse_args().out
    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for file in sorted(RESULTS.glob("*-avx*.json")):
        what, _, isa = file.stem.rpartition("-")
        document = read_document(file)
        rows = document["rows"]
        if what == "image":
            written.append(image(document, isa, out / f"image-b-{isa}.png"))
        elif what == "scaling":
            written.append(scaling(document, ["head"], out / f"scaling-head-{isa}.png"))
            loop = ["fashion-mnist", "image-b"]
            written.append(scaling(document, loop, out / f"scaling-loop-{isa}.png"))
        elif what == "roofline":
            written.append(roofline(document, out / f"{file.stem}.png"))
        elif what == "training" and "curves" in document:
            written.append(training(document, out / f"{file.stem}.png"))
        elif what in ("head", "fashion-mnist"):
            mine = [row for row in rows if row["workload"] not in ("head-l", "head-h")]
            machine = document.get("machine")
            written += plot(mine, out, f"-{isa}", machine=machine, formats=("png",), force=True)
    if samplers := read_rows(RESULTS / "quality-samplers.json"):
        written.append(quality_of_samplers(samplers, out / "quality-samplers.png"))
    if found := read_document(RESULTS / "curve-fashion-mnist.json"):
        written.append(curve_plot.plot(found, out / "curve-fashion-mnist.png", force=True))
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
