"""`marfast bench`: who takes how long, side by side in one process."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from marfast import startup
from marfast.bench import floors, heads, images, measure, plots, predict
from marfast.bench.head_rows import head_floors, measure_head
from marfast.bench.image_rows import ImageWorkload, measure_images, varied_settings
from marfast.bench.results import Row, commit, write_rows
from marfast.bench.timing import AT_MOST_BUSY
from marfast.checkpoints import Architecture, Preset, Settings, find, get_preset
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_table, progress_bar
from marfast.cli.errors import (
    Failed,
    bad,
    check_device,
    check_environment,
    one_line,
    reported_as,
)
from marfast.cli.target import check_file, check_folder
from marfast.files import sweep
from marfast.generation.load import load
from marfast.verifying import original as checkouts
from marfast.verifying.runner import load_original, patch_process

SIZES = {"b": "mar_base", "l": "mar_large", "h": "mar_huge"}
ALLOWED = (
    "head-b, head-l, head-h, image-b, image-l, image-h, throughput-b, throughput-l, "
    "throughput-h, fashion-mnist, or a model's file or folder"
)
OF_THE_PAPER = re.compile("(head|image|throughput)-([blh])")


@dataclass(frozen=True)
class _Asked:
    rows: list[int]
    batch: list[int | None]
    num_iter: list[int | None]
    steps: int | None
    timed: int


def bench(
    workloads: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKLOAD...",
            help="head-b|l|h: the sampling loop of a head of the paper. image-b|l|h: one image, by "
            "phase. throughput-b|l|h: a batch of images. fashion-mnist, or your model's file.",
        ),
    ],
    rows: Annotated[
        str, typer.Option(metavar="R,R,…", help="Rows of a head; guided, two a token.")
    ] = "2,8,32,128",
    batch: Annotated[
        str | None,
        typer.Option(metavar="B,B,…", help="Images at once. [default: 1; 64 for throughput]"),
    ] = None,
    num_iter: Annotated[
        str | None,
        typer.Option(metavar="K,K,…", help="Autoregressive iterations. [default: the model's]"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="S",
            help="Sampling steps. [default: 25 of a head, else the model's]",
        ),
    ] = None,
    timed: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="How many of the K iterations are timed."),
    ] = 4,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs of each that are timed.")
    ] = 9,
    original: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A checkout of LTH14/mar, timed, too."),
    ] = None,
    with_compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile, too; it takes minutes first.")
    ] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where it is timed.")] = "cpu",
    preset: options.Preset = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows as JSON, as they come.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write pictures (PNG).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Of heads: what the plan predicts for GPUs in bfloat16, instead of measuring.",
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Time marfast beside plain PyTorch, autocast and, on request, torch.compile and the original.

    All take turns in one process. Whoever differs from the float32 reference by more than its dtype
    allows is refused. Percentiles are p20, p50 and p80.
    """
    check_environment()
    check_device(device)
    asked = _Asked(
        rows=_numbers("--rows", rows),
        batch=[None] if batch is None else [*_numbers("--batch", batch)],
        num_iter=[None] if num_iter is None else [*_numbers("--num-iter", num_iter)],
        steps=steps,
        timed=timed,
    )
    file = None if out is None else check_file("--out", out, force)
    folder = None if plot is None else _check_pictures(plot, workloads, predicted, force)
    for name in workloads:
        _check_workload(name, preset, asked)
    if predicted:
        return _predict(workloads, asked, folder, force, as_json)
    implementation = None
    if original is not None:
        with reported_as("--original"):
            checkout = checkouts.require_checkout(original)
            checkouts.require_packages()
        patch_process()
        implementation = load_original(checkout)
    how = measure.Options(rounds, device, with_compile, implementation)
    if file is not None:
        sweep(file.parent)
    found: list[Row] = []
    status = 0
    try:
        with one_line(), progress_bar("measuring") as report:
            for i, name in enumerate(workloads):
                report(name, i, len(workloads))
                for new in _measure(name, preset, asked, how):
                    written = bool(found)
                    found += new
                    if file is not None:
                        write_rows(file, found, force=force or written, commit=commit())
    except KeyboardInterrupt:
        status = startup.INTERRUPTED
        echo("interrupted" + ": what follows was finished before" * bool(found), err=True)
    except measure.WrongResult as error:
        status = 1
        echo(f"error: {error}", err=True)
    except Failed as error:
        status = error.exit_code
        echo(f"error: {error}", err=True)
    if as_json:
        print_json(found)
    elif found or not status:
        _print(found)
    if folder is not None:
        with reported_as("--plot"):
            plots.plot(found, folder, force=force)
    if status:
        raise typer.Exit(status)


def _check_pictures(plot: str, workloads: list[str], predicted: bool, force: bool) -> Path:
    """The folder for them, if they can be drawn and written."""
    try:
        plots.require()
    except ImportError as error:
        raise bad("--plot", str(error)) from None
    names = ["predicted.png"]
    if not predicted:
        names = [file for name in workloads for file in plots.file_names(name).values()]
    return check_folder("--plot", plot, names, force)


def _check_workload(name: str, preset: str | None, asked: _Asked) -> None:
    """Errors for what can't be measured, before anything is: weights in files are read."""
    if paper := OF_THE_PAPER.fullmatch(name):
        known = get_preset(SIZES[paper[2]])
        if paper[1] == "head":
            known = Preset(known.architecture, Settings(num_iter=1, steps=25))
    else:
        if name != "fashion-mnist" and not os.path.exists(name):
            raise bad("WORKLOAD", f"{name!r}; allowed are {ALLOWED}")
        with reported_as("WORKLOAD", model="WORKLOAD"):
            checkpoint = find(name, preset)
            known = checkpoint.preset
            checkpoint.file.check(known.architecture.build())
    counts = [None] if paper and paper[1] == "head" else asked.num_iter
    for count in counts:
        with reported_as("WORKLOAD"):
            varied_settings(known.settings, known.architecture, count, asked.steps)


def _measure(
    name: str, preset: str | None, asked: _Asked, how: measure.Options
) -> Iterator[list[Row]]:
    """Rows of one workload, as they come."""
    kind, _, size = name.partition("-")
    if kind == "head":
        net = heads.make_head(SIZES[size], how.device)
        limits = head_floors(net, how.device)
        for rows in asked.rows:
            yield measure_head(name, net, rows, asked.steps or 25, how, limits)
        return
    workload = _image_workload(name, preset, asked)
    workload.module.to(how.device)
    peaks = {name: floors.peak(dtype, how.device) for name, dtype in measure.DTYPES.items()}
    peaks["bfloat16"] = max(peaks.values())
    for count, batch in itertools.product(asked.num_iter, asked.batch):
        with reported_as("--num-iter"):
            varied = workload.varied(batch, num_iter=count, steps=asked.steps)
        yield measure_images(varied, how, peaks)


def _image_workload(name: str, preset: str | None, asked: _Asked) -> ImageWorkload:
    """A model of the paper with random weights, or one in a file, and what it is meant for."""
    kind, _, size = name.partition("-")
    if kind in ("image", "throughput") and size in SIZES:
        known = get_preset(SIZES[size])
        module = images.random_module(SIZES[size], asked.steps or int(known.settings.steps))
        architecture, settings = known.architecture, known.settings
    else:
        with reported_as("WORKLOAD", model="WORKLOAD"):
            pipeline = load(name, preset)
        assert pipeline.report is not None
        architecture = Architecture(**dict(pipeline.report.architecture))  # type: ignore[arg-type]
        module, settings = pipeline.model.module, pipeline.settings
    batch = 64 if kind == "throughput" else 1
    return ImageWorkload(name, module, architecture, settings, batch, asked.timed)


def _predict(
    workloads: list[str], asked: _Asked, folder: Path | None, force: bool, as_json: bool
) -> None:
    names = [f"MAR-{name.removeprefix('head-').upper()}" for name in workloads]
    if not set(names) <= set(predict.HEADS):
        raise bad("--predict", "it is for head-b, head-l and head-h")
    entries = predict.table(names, asked.rows, steps=asked.steps or 25)
    if folder is not None:
        with reported_as("--plot"):
            predict.plot(entries, folder / "predicted.png", force=force)
    if as_json:
        print_json(entries)
        return
    columns = ("head", "GPU", "R", "regime", "row x column groups", "SMs at work")
    print_table((*columns, "ms a step", "floor"), map(_predicted_cells, entries))
    echo(f"{predict.NOTE}: csrc/cuda/plan.h's model of each device, bfloat16")


def _predicted_cells(entry: Mapping[str, Any]) -> tuple[object, ...]:
    groups = f"{entry['row_groups']} x {entry['column_groups']}" if entry["row_groups"] else ""
    return (
        entry["head"],
        entry["gpu"],
        entry["rows"],
        entry["regime"],
        groups,
        f"{100 * entry['utilisation']:.0f} %",
        f"{1e3 * entry['time'] / entry['steps']:.3g}",
        f"{1e3 * entry['floor'] / entry['steps']:.3g}",
    )


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,6}", part) and int(part) for part in parts):
        raise bad(option, f"{text!r}; allowed are whole numbers from 1, separated by commas")
    return [int(part) for part in parts]


def _print(rows: list[Row]) -> None:
    table = []
    for row in rows:
        if "rows" in row:
            case, times = f"R = {row['rows']}", row["ms_a_step_p20_p50_p80"]
            shown = " ".join(f"{time:.3g}" for time in times) + " ms a step"
            rate, share = f"{row['tokens_a_second']:.4g} tokens/s", row["share_of_floor"]
        else:
            case, times = f"B = {row['batch']}, K = {row['iterations']}", row["seconds_p20_p50_p80"]
            shown = " ".join(f"{time:.3g}" for time in times) + " s"
            rate, share = f"{row['images_a_second']:.3g} images/s", None
        ratios = ", ".join(f"{ratio:.2f}x {who}" for who, ratio in row["ratio_to"].items())
        off = "" if row["difference"] is None else f"{row['difference']:.1e}"
        memory = "" if row["working_mb"] is None else f"{row['working_mb']:.0f} MB"
        floor = "" if share is None else f"{100 * share:.0f} %"
        table.append((row["workload"], case, row["who"], shown, rate, memory, ratios, floor, off))
    columns = ("workload", "case", "who", "p20 p50 p80", "rate", "memory", "speed against")
    print_table((*columns, "of floor", "off by"), table)
    for row in rows:
        if "phases" in row:
            parts = ", ".join(f"{name} {value:.3g} s" for name, value in row["phases"].items())
            case = f"B = {row['batch']}, K = {row['iterations']}"
            echo(f"{row['workload']}, {case}, {row['who']}: {parts}")
    busy = max((row["others_took"] for row in rows), default=0.0)
    if busy > AT_MOST_BUSY:
        echo(
            f"warning: others took up to {100 * busy:.0f} % of this machine meanwhile; the "
            "percentiles are p10, p50 and p90",
            err=True,
        )
