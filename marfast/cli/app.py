"""The program `marfast`: its commands, and how every error becomes one line and an exit status."""

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from marfast import startup
from marfast._version import __version__
from marfast.cli.bench import bench
from marfast.cli.cache import cache
from marfast.cli.console import echo, escape_what_streams_lack, printable, silence
from marfast.cli.convert import convert
from marfast.cli.curve import curve
from marfast.cli.edit import edit
from marfast.cli.errors import one_line
from marfast.cli.evaluate import evaluate
from marfast.cli.generate import generate
from marfast.cli.info import info
from marfast.cli.misuse import worded
from marfast.cli.profile import profile
from marfast.cli.sample import sample
from marfast.cli.train import train
from marfast.cli.verify import verify


class _Interrupted(Exception):
    """Ctrl-C, which a command has said nothing of. Versions of typer differ in what they say."""


@contextmanager
def _noticing_ctrl_c() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise _Interrupted from None


class OneLineErrors(TyperGroup):
    """A group whose errors are one line on stderr, without usage or boxes."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _noticing_ctrl_c():
            return super().make_context(*args, **options)

    def invoke(self, context: Any) -> Any:
        with _noticing_ctrl_c():
            return super().invoke(context)

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            with one_line():
                status = super().main(*args, **options | {"standalone_mode": False})
        except (_Interrupted, typer.Abort):
            echo("interrupted", err=True)
            status = startup.INTERRUPTED
        except Exception as error:
            # What the parser raises is known by these attributes in every version of typer.
            if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
                raise
            echo(f"error: {worded(error)}", err=True)
            status = error.exit_code
        if not options.get("standalone_mode", True):
            return status
        sys.exit(status or 0)


app = typer.Typer(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:\n\n\b\n  marfast generate --labels 0-9 --out images.png",
)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast generate --labels 0-9 --per-label 10 --out images.png\n"
    '  marfast generate --labels "sneaker,bag" --per-label 5 --seed 1 --out images/\n'
    "  marfast generate --like shoes.png --seed 2 --out more.png\n"
    "  marfast generate --model mine.pth --preset mine.json --labels none --out mine.png\n"
    "  marfast generate --model latents.pth --preset latents.json --vae kl16.ckpt --labels 3 "
    "--out 3.png"
)(generate)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast edit --image boot.png --box 0,0,28,14 --label sneaker --count 8 --out shoes.png\n"
    "  marfast edit --image shirt.png --mask sleeve.png --label t-shirt --out edited.png\n"
    "  marfast edit --image bag.png --outpaint left=8,right=8 --label bag --out wide.png"
)(edit)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast sample --count 2000 --out images/\n"
    "  marfast sample --model mine.pth --preset mine.json --seed 1 --format npz --out mine/\n\n"
    "With torchrun or Slurm: docs/evaluation.md."
)(sample)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast evaluate --model fashion-mnist --count 10000 --set num_iter=8\n"
    "  marfast evaluate --model mine.pth --preset mine.json --protocol fashion-mnist --out mine/"
)(evaluate)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast curve --model fashion-mnist --out curve.json --plot curve.png\n"
    "  marfast curve --vary num_iter=4,8,16 --vary cfg=1,3,5 --minutes 5"
)(curve)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast train --out run/ --minutes 30\n"
    "  marfast train --model mine.json --data photos/ --out mine/ --resume\n"
    "\nWith torchrun: docs/training.md."
)(train)
app.command(epilog="Example:\n\n\b\n  marfast cache --data photos/ --vae kl16.ckpt --out cache/")(
    cache
)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast convert mine.pth mine/ --preset mine.json\n"
    "  marfast convert mine.pth mine.safetensors --preset mine.json --dtype float16"
)(convert)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast bench head-b --rows 2,8\n"
    "  marfast bench image-b --num-iter 64 --rounds 3 --plot pictures/ --out image-b.json"
)(bench)
app.command(
    epilog="Examples:\n\n\b\n"
    "  marfast info --json\n"
    "  marfast info shoes.png\n"
    "  marfast info --explain --model mar_base --dtype bfloat16\n"
    "  marfast info --model mine.pth --preset mine.json"
)(info)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Examples:\n\n\b\n"
    "  marfast profile --trace trace.json generate --labels 3 --out 3.png\n"
    "  marfast profile --trace head.json bench head-b --rows 2 --rounds 1\n"
    "  marfast profile script.py its own arguments",
)(profile)
app.command(epilog="Example:\n\n\b\n  marfast verify --original ../mar")(verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"marfast {__version__}")
        raise typer.Exit()


@app.callback()
def _marfast(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """MAR image generation, several times faster, from the same weights and seeds."""


def main() -> None:
    """The console script."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(message)}\n"
    escape_what_streams_lack()
    try:
        app(prog_name="marfast")
    except KeyboardInterrupt:
        echo("interrupted", err=True)
        sys.exit(startup.INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that could be interrupted
        _forget_unwritten()


def _forget_unwritten() -> None:
    """What stdout didn't take has been reported; Python would report it once more at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        silence(sys.stdout)
