"""`marfast convert`: a checkpoint as safetensors that say what they hold."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs
from marfast.cli.errors import reported_as


def convert(
    model: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A .pth as LTH14/mar saves it, a .safetensors, a folder, or an embedded model's "
            "name.",
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="A folder, for config.json and model.safetensors, or one .safetensors.",
        ),
    ],
    preset: options.Preset = None,
    weights: options.Weights = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="How to store the weights.")
    ] = "float32",
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A text file of the classes' names, one a line, in order. [default: the model's]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")] = (
        False
    ),
    as_json: options.AsJson = False,
) -> None:
    """Convert a checkpoint to safetensors that load without a preset.

    Every weight is checked first. OUT appears whole or not at all.
    """
    with startup.importing():
        from marfast.checkpoints.conversion import convert as write
        from marfast.checkpoints.presets import read_names
    with reported_as("--classes"):
        names = None if classes is None else read_names(Path(classes).expanduser())
    with _interruptible(), reported_as("IN", model="IN", out="OUT"):
        done = write(model, out, preset, weights=weights, dtype=dtype, classes=names, force=force)
    if as_json:
        print_json(asdict(done))
        return
    print_pairs(report_pairs(asdict(done.read)))
    print_pairs([("written", f"{done.out} ({done.dtype}, {done.bytes:,} bytes)")])


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        echo("interrupted: nothing was written", err=True)
        raise typer.Exit(startup.INTERRUPTED) from None


def report_pairs(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    """A `report.Report` for `print_pairs`."""
    architecture = ", ".join(f"{key} {value}" for key, value in report["architecture"].items())
    dtypes = ", ".join(report["dtypes"])
    return [
        ("file", report["file"]),
        ("entry", report["entry"] or "the whole file"),
        ("layout", report["layout"]),
        ("preset", report["preset"] or "none of this architecture"),
        ("architecture", architecture),
        ("parameters", f"{report['parameters']:,} ({dtypes}, {report['bytes']:,} bytes)"),
        ("left out", ", ".join(report["left_out"]) or "nothing"),
    ]
