"""`--like`: what an earlier run was asked, as the defaults of this one's options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli.console import echo
from marfast.cli.errors import bad, reported_as
from marfast.cli.options import was_given

if TYPE_CHECKING:
    from marfast.generation.provenance import Provenance

PLACE = ("marfast", "torch", "device", "processor", "backends")
"""What may move an image's last bit, where it is known."""


def _take(context: typer.Context, given: str | None) -> str | None:
    """Make it the defaults, before other options are read."""
    if given is None:
        return None
    with startup.importing():
        from marfast.generation.runs import read_provenance
    with reported_as("--like", file="--like"):
        said = read_provenance(Path(given).expanduser())
    if said.command != "generate":
        raise bad("--like", f"{given} was made by {said.command}; allowed is what generate made")
    if said.seed is None:
        raise bad("--like", f"{given} was made without a seed, or with a list of them")
    if not said.model:
        raise bad("--like", f"{given} was made by a model without a name")
    context.meta[__name__] = said
    context.default_map = {**(context.default_map or {}), **_options(said)}
    return given


Like = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        is_eager=True,
        callback=_take,
        help="Make an image or a folder of marfast's again, or a variant: other options given go "
        "before what it was made with. It does not say where files lie: --preset, --weights and "
        "--vae are given again.",
    ),
]


def _options(said: "Provenance") -> dict[str, Any]:
    """By the names of `generate`'s arguments."""
    settings = {
        name: getattr(said.settings, name)
        for name in ("num_iter", "cfg", "cfg_schedule", "temperature", "sampler", "eta")
    }
    interval = said.settings.guidance_interval
    found = {
        **settings,
        "steps": str(said.settings.steps),
        "guidance_interval": None if interval is None else f"{interval[0]},{interval[1]}",
        "model": said.model,
        "dtype": None if said.dtype == "float32" else said.dtype,
        "labels": said.labels,
        "per_label": said.per_label,
        "first": said.first,
        "count": said.count,
        "seed": said.seed,
        "seed_per_image": said.seed_per_image,
        "part": said.part,
        "threads": said.threads,
        "device": said.device,
        "columns": said.columns,
        "scale": said.scale,
    }
    return {name: value for name, value in found.items() if value is not None}


def check_tokenizer(context: typer.Context, vae: str | None) -> None:
    """An error where the file was made with a tokenizer and none is named."""
    said: Provenance | None = context.meta.get(__name__)
    if said is not None and said.tokenizer and vae is None:
        told = f"{context.params['like']} was made with a tokenizer"
        raise bad("--vae", f"{told}; name its file again, and --preset or --weights if any were")


def is_of_another_kind(context: typer.Context, grid: bool) -> bool:
    """Whether the file that it is to be like is a grid and this one isn't, or the reverse."""
    said: Provenance | None = context.meta.get(__name__)
    return said is not None and bool(said.columns) != grid


def check_weights(context: typer.Context, made: "Provenance") -> None:
    """An error where the weights are others than those that it is to be like, unless the model was
    named."""
    said: Provenance | None = context.meta.get(__name__)
    if said is None:
        return
    known = ["weights", "tokenizer"] if said.weights else []
    if differ := said.differences(made, known):
        told = f"it was made with {'; '.join(differ)}"
        if not was_given(context, "model"):
            where = "--model, and --weights for an entry of its file, say where those are"
            raise bad("--like", f"{told}; {where}, or take others")
        echo(f"warning: {context.params['like']}: {told}", err=True)


def tell_place(context: typer.Context, made: "Provenance | None") -> None:
    """Say where the machine or the programs are others, as bits may then differ."""
    said: Provenance | None = context.meta.get(__name__)
    if said is None or made is None:
        return
    known = [name for name in PLACE if getattr(said, name) and getattr(made, name)]
    if differ := said.differences(made, known):
        told = f"made with {'; '.join(differ)}: pixels may differ in their last bit"
        echo(f"warning: {context.params['like']} was {told}", err=True)
