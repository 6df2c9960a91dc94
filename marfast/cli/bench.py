"""`marfast bench`: who takes how long, side by side in one process."""

import os
import re
from dataclasses import replace
from typing import Annotated

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo
from marfast.cli.errors import bad, check_device, check_environment
from marfast.cli.options import was_given
from marfast.cli.target import check_file

ALLOWED = (
    "head-b, head-l, head-h, head (with --spec), image-b, image-l, image-h, throughput-b, "
    "throughput-l, throughput-h, fashion-mnist, or a model's file or folder"
)
NAMED = "nextstep, vibevoice, pocket-tts, sphere-ar, ming, nova, orthus"
OF_THE_PAPER = re.compile("(head|image|throughput)-([blh])")


def bench(
    context: typer.Context,
    workloads: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKLOAD...",
            help="head-b|l|h: the sampling loop of a head of the paper; head: of one named by "
            "--spec. image-b|l|h: one image, by phase. throughput-b|l|h: a batch of images. "
            "fashion-mnist, or your model's file.",
        ),
    ],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="About a minute: --rows 2,32 --timed 1 --rounds 3, where not given.",
        ),
    ] = False,
    rows: Annotated[
        str, typer.Option(metavar="R,R,…", help="Rows of a head; guided, two a token.")
    ] = "2,8,32,128",
    spec: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,…", help=f"Of head: {NAMED}.")
    ] = None,
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
            help="Sampling steps. [default: 25 of a head of the paper, else the model's own]",
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
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Say of each case how far results were off, before it is timed."
        ),
    ] = False,
    device: options.Device = "cpu",
    preset: options.Preset = None,
    vae: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Decode a model's latents, too: kl16.ckpt, or random for one of its sizes.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows as JSON, as they come.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write pictures, as PNG, SVG and PDF.")
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Time marfast beside plain PyTorch, autocast and, on request, torch.compile and the original.

    All take turns in one process. Each of marfast's results is verified before it is timed: whoever
    differs from the float32 reference by more than its dtype allows is refused. Percentiles are
    p20, p50 and p80; rows are printed as they come.
    """
    if quick:
        rows = rows if was_given(context, "rows") else "2,32"
        timed = timed if was_given(context, "timed") else 1
        rounds = rounds if was_given(context, "rounds") else 3
    row_counts = _numbers("--rows", rows)
    batches: list[int | None] = [None] if batch is None else [*_numbers("--batch", batch)]
    iterations: list[int | None] = (
        [None] if num_iter is None else [*_numbers("--num-iter", num_iter)]
    )
    workloads = _with_specs(workloads, spec)
    for name in workloads:
        known = OF_THE_PAPER.fullmatch(name) or name.startswith("head ")
        if not (known or name == "fashion-mnist" or os.path.exists(name)):
            raise bad("WORKLOAD", f"{name!r}; allowed are {ALLOWED}")
    if vae is not None and all(re.match("head[- ]", name) for name in workloads):
        raise bad("--vae", f"{vae}; heads alone make no images to decode")
    file = None if out is None else check_file("--out", out, force)
    with startup.importing():
        from marfast.cli import measuring
    check_environment()
    check_device(device)
    asked = measuring.Asked(
        workloads, preset, row_counts, batches, iterations, steps=steps, timed=timed, vae=vae
    )
    folder = None if plot is None else measuring.check_pictures(plot, asked, force)
    output = measuring.Output(file, folder, force, as_json)
    for name in workloads:
        measuring.check_workload(name, asked)
    if dry_run:
        return
    how = measuring.how(rounds, device, with_compile, original, attempts=1 if quick else 3)
    if verify:
        how = replace(how, verified=lambda line: echo(line, err=as_json))
    status = measuring.run(asked, how, output)
    if status:
        raise typer.Exit(status)


def _with_specs(workloads: list[str], spec: str | None) -> list[str]:
    """The workload `head` for each of the named heads, as "head NAME"."""
    names = [] if spec is None else spec.split(",")
    for name in names:
        if name not in NAMED.split(", "):
            raise bad("--spec", f"{name!r}; allowed are {NAMED}")
    if bool(names) != ("head" in workloads):
        raise bad("--spec", "it names the heads of the workload `head`, and stands with it alone")
    found: list[str] = []
    for workload in workloads:
        found += [f"head {name}" for name in names] if workload == "head" else [workload]
    return found


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,6}", part) and int(part) for part in parts):
        raise bad(option, f"{text!r}; allowed are whole numbers from 1, separated by commas")
    return [int(part) for part in parts]
