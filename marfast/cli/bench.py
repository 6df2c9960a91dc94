"""`marfast bench`: who takes how long, side by side in one process."""

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from marfast.benchmarking import floors, heads, images, measure, predict
from marfast.benchmarking.plots import plot
from marfast.benchmarking.results import Row, commit, write_rows
from marfast.benchmarking.timing import AT_MOST_BUSY
from marfast.checkpoints import Architecture, get_preset
from marfast.generation import load
from marfast.verification import original as checkouts
from marfast.verification.runner import load_original, patch_process

from .console import print_table, progress_bar
from .errors import bad, check_environment, reported_as
from .values import whole

SIZES = {"b": "mar_base", "l": "mar_large", "h": "mar_huge"}
ALLOWED = (
    "head-b, head-l, head-h, image-b, image-l, image-h, throughput-b, throughput-l, "
    "throughput-h, fashion-mnist, or a model's file or folder"
)


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
            parser=whole(2),
            metavar="S",
            help="Sampling steps. [default: 25 of a head, else the model's]",
        ),
    ] = None,
    timed: Annotated[
        int,
        typer.Option(parser=whole(1), metavar="N", help="How many of the K iterations are timed."),
    ] = 4,
    rounds: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="Runs of each that are timed.")
    ] = 9,
    original: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A checkout of LTH14/mar, timed, too."),
    ] = None,
    with_compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile, too; it takes minutes first.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    preset: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What a model's file holds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows as JSON, as they come.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plot", metavar="FOLDER", help="Write pictures (PNG).")
    ] = None,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Of heads: what the plan predicts for GPUs in bfloat16, instead of measuring.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time marfast beside plain PyTorch, autocast and, on request, torch.compile and the original.

    All take turns in one process. Whoever differs from the float32 reference by more than its dtype
    allows is refused. Percentiles are p20, p50 and p80.
    """
    check_environment()
    if device not in ("cpu", "cuda"):
        raise bad("--device", f"{device!r}; allowed are cpu and cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise bad("--device", "cuda: there is no CUDA device here")
    asked = _Asked(
        _numbers("--rows", rows, 1),
        [None] if batch is None else [*_numbers("--batch", batch, 1)],
        [None] if num_iter is None else [*_numbers("--num-iter", num_iter, 1)],
        steps,
        timed,
    )
    for name in workloads:
        known = re.fullmatch("(head|image|throughput)-[blh]|fashion-mnist", name)
        if not known and not Path(name).exists():
            raise bad("WORKLOAD", f"{name!r}; allowed are {ALLOWED}")
    if predicted:
        return _predict(workloads, asked, plots, as_json)
    implementation = None
    if original is not None:
        with reported_as("--original"):
            checkout = checkouts.require_checkout(original)
            checkouts.require_packages()
        patch_process()
        implementation = load_original(checkout)
    options = measure.Options(rounds, device, with_compile, implementation)
    found: list[Row] = []
    wrong = False
    try:
        with progress_bar("measuring") as report:
            for i, name in enumerate(workloads):
                report(name, i, len(workloads))
                for new in _measure(name, preset, asked, options):
                    found += new
                    if out is not None:
                        write_rows(out, found, commit=commit())
    except KeyboardInterrupt:
        typer.echo("interrupted: what follows was finished before", err=True)
    except measure.WrongResult as error:
        wrong = True
        typer.echo(f"error: {error}", err=True)
    if plots is not None:
        with reported_as("--plot"):
            try:
                plot(found, plots)
            except ImportError as error:
                raise bad("--plot", str(error)) from None
    if as_json:
        typer.echo(json.dumps(found))
    elif found or not wrong:
        _print(found)
    if wrong:
        raise typer.Exit(1)


def _measure(name: str, preset: str | None, asked: _Asked, options: measure.Options) -> Any:
    """Rows of one workload, as they come."""
    kind, _, size = name.partition("-")
    if kind == "head":
        net = heads.make_head(SIZES[size], options.device)
        limits = measure.head_floors(net, options.device)
        for rows in asked.rows:
            yield measure.measure_head(name, net, rows, asked.steps or 25, options, limits)
        return
    if kind in ("image", "throughput") and size in SIZES:
        known = get_preset(SIZES[size])
        module = images.random_module(SIZES[size], asked.steps or int(known.settings.steps))
        architecture, settings = known.architecture, known.settings
        usual = 64 if kind == "throughput" else 1
    else:
        with reported_as("WORKLOAD"):
            pipeline = load(name, preset)
            assert pipeline.report is not None
            architecture = Architecture(**dict(pipeline.report.architecture))  # type: ignore[arg-type]
        module, settings = pipeline.model.module, pipeline.settings
        usual = 1
    peaks = {d: floors.peak(t, options.device) for d, t in measure.DTYPES.items()}
    peaks["bfloat16"] = max(peaks.values())
    module.to(options.device)
    for count, batch in itertools.product(asked.num_iter, asked.batch):
        with reported_as("--num-iter"):
            workload = measure.image_workload(
                *(name, module, architecture, settings, batch or usual, asked.timed),
                *(count, asked.steps),
            )
        yield measure.measure_images(workload, options, peaks)


def _predict(workloads: list[str], asked: _Asked, plots: Path | None, as_json: bool) -> None:
    names = [f"MAR-{name.removeprefix('head-').upper()}" for name in workloads]
    if not set(names) <= set(predict.HEADS):
        raise bad("--predict", "it is for head-b, head-l and head-h")
    entries = predict.table(names, asked.rows, steps=asked.steps or 25)
    if plots is not None:
        with reported_as("--plot"):
            plots.mkdir(parents=True, exist_ok=True)
            predict.plot(entries, plots / "predicted.png")
    if as_json:
        typer.echo(json.dumps(entries))
        return
    print_table(
        ("head", "GPU", "R", "regime", "row x column groups", "SMs at work", "ms a step", "floor"),
        [
            (
                *(e["head"], e["gpu"], str(e["rows"]), e["regime"]),
                f"{e['row_groups']} x {e['column_groups']}" if e["row_groups"] else "",
                f"{100 * e['utilisation']:.0f} %",
                *(f"{1e3 * e[name] / e['steps']:.3g}" for name in ("time", "floor")),
            )
            for e in entries
        ],
    )
    typer.echo(f"{predict.NOTE}: csrc/cuda/plan.h's model of each device, bfloat16")


def _numbers(option: str, text: str, least: int) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,6}", part) and int(part) >= least for part in parts):
        raise bad(option, f"{text!r}; allowed are whole numbers from {least}, separated by commas")
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
            typer.echo(f"{row['workload']}, {case}, {row['who']}: {parts}")
    busy = max((row["others_took"] for row in rows), default=0.0)
    if busy > AT_MOST_BUSY:
        typer.echo(
            f"warning: others took up to {100 * busy:.0f} % of this machine meanwhile; the "
            "percentiles are p10, p50 and p90",
            err=True,
        )
