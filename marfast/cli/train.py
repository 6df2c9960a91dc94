"""`marfast train`: a model from images, latents or sequences of vectors, on one device or many."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs, progress_bar
from marfast.cli.errors import Failed, bad, check_device, reported_as
from marfast.cli.fields import with_fields_of
from marfast.cli.target import check_folder
from marfast.training.settings import PAPER, Session, TrainSettings, meaning

if TYPE_CHECKING:
    from marfast.training.training import Outcome, Progress

NAMED = 5  # files that are told by name; all of them are in the run's state.json


def _default(name: str, default: Any) -> str:
    """For --help, where the meaning doesn't say it."""
    if default is None:
        return ""
    paper = getattr(PAPER, name, default)
    known = f"; mar_base, mar_large, mar_huge: {_worded(paper)}" * (paper != default)
    return f" [default: {_worded(default)}{known}]"


def _worded(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else ", ".join(map(str, _listed(value)))


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@with_fields_of(Session, TrainSettings, meaning=meaning, defaults=_default)
def train(
    out: Annotated[
        str, typer.Option(metavar="DIR", help="A new folder, or a run's with --resume.")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="What to train: fashion-mnist, mar_base, mar_large, mar_huge, or a config.json.",
        ),
    ] = "fashion-mnist",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="fashion-mnist; a folder of images, one for each class; a latent cache; an .npz "
            "with images or sequences, labels, lengths; an .npy. [default: fashion-mnist's own]",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="An .npy of class indices beside an .npy.")
    ] = None,
    vae: options.Vae = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A model to begin with. [default: random weights]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")
    ] = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    **fields: Any,
) -> None:
    """Train a model into a folder, in which DIR/last is always a whole checkpoint.

    Stopped at any moment, the same command with --resume goes on from the last checkpoint: on a
    CPU with the same numbers, to the last bit. Under torchrun, all processes train one model.
    """
    folder = check_folder("--out", out, [], force=True)
    with reported_as("--out"):
        session = Session.of(**_of(Session, fields))
    with startup.importing():
        import torch

        from marfast.checkpoints import get_preset
        from marfast.cli.job import resumable, this_place
        from marfast.generation.load import find_tokenizer
        from marfast.training import open_data, recipe
        from marfast.training import train as run
        from marfast.training.saved import PLAN, Plan
        from marfast.training.training import NotFinite
    place = this_place()
    found_device = check_device(f"cuda:{place.local_rank}" if device == "cuda" else device)
    if threads is not None:
        torch.set_num_threads(threads)
    with reported_as("--model", preset="--model"):
        preset = get_preset(model)
    with reported_as("--out"):
        base = recipe(preset.name)
        if resume and (folder / PLAN).exists():
            base = Plan.read(folder).settings
        settings = base.replace(**_of(TrainSettings, fields))
    if data is None and preset.name != "fashion-mnist":
        raise bad("--data", f"not given; {model} has no data set of its own")
    with reported_as("--vae"):
        tokenizer = None if vae is None else find_tokenizer(vae, preset.architecture)
    with reported_as("--data"):
        items = open_data(
            data or "fashion-mnist", preset.architecture, labels=labels, tokenizer=tokenizer
        )
    try:
        with (
            reported_as("--out", model="--start", preset="--start", data="--data"),
            resumable("the last checkpoint stays, and --resume goes on"),
            progress_bar("training", shown=place.leads) as bar,
        ):
            outcome = run(
                preset,
                items,
                folder,
                settings,
                session=session,
                start=start,
                resume=resume,
                device=found_device,
                tokenizer=tokenizer,
                place=place,
                report=lambda progress: _tell(progress, bar, quiet=as_json),
            )
    except (NotFinite, ImportError) as error:
        raise Failed(str(error)) from None
    if place.leads:
        _print(outcome, folder, as_json)
    if outcome.interrupted:
        echo("interrupted: it is saved, and --resume goes on", err=True)
        raise typer.Exit(startup.INTERRUPTED)


def _of(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Those of the fields that are this dataclass's and were given."""
    names = meaning(kind)
    return {k: v for k, v in fields.items() if k in names and v is not None and v != []}


def _tell(progress: "Progress", bar: Any, quiet: bool) -> None:
    line = (
        f"loss {progress.loss:.4f}, {progress.images_per_second:.3g} images/s, "
        f"{_duration(progress.seconds_left)} left"
    )
    bar(line, progress.step, progress.steps)
    if progress.saved and not quiet:
        echo(f"step {progress.step} of {progress.steps}, epoch {progress.epoch:.2f}: {line}; saved")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h" if minutes >= 60 else f"{seconds / 60:.1f} min"


def _print(outcome: "Outcome", folder: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from marfast.training.saved import LAST

    if as_json:
        print_json(asdict(outcome) | {"out": str(folder)})
        return
    pairs: list[tuple[str, object]] = [
        ("steps", f"{outcome.step}, {outcome.steps_made} of them now"),
        ("epochs", f"{outcome.epoch:.2f}" + ", all of them" * outcome.finished),
        ("loss", f"{outcome.loss:.4f}"),
        ("speed", f"{outcome.images_per_second:.3g} images/s"),
        ("model", folder / LAST),
    ]
    if outcome.skipped:
        pairs.append(("steps left out", f"{outcome.skipped}: their loss was not finite"))
    if outcome.unreadable:
        pairs.append(("files left out", f"{len(outcome.unreadable)} that can't be read"))
    print_pairs(pairs)
    for path, why in [*outcome.unreadable.items()][:NAMED]:
        echo(f"left out: {path}: {why}", err=True)
