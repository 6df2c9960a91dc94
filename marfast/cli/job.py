"""What `sample`, `evaluate` and `curve` have in common: a model, its settings, and the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from marfast import startup
from marfast.checkpoints import Checkpoint, Preset, Settings
from marfast.cli import model as loading
from marfast.cli.console import echo
from marfast.cli.errors import bad, check_device, check_environment, reported_as
from marfast.cli.settings import parse_set
from marfast.errors import ArgumentError, is_out_of_memory
from marfast.evaluation import Place, Protocol
from marfast.generation import Pipeline


def find_model(model: str, preset: str | None, weights: str | None, vae: str | None) -> Checkpoint:
    """An opened model that makes images."""
    check_environment()
    return loading.open_model(model, preset, weights, vae, {})


def choose_settings(
    preset: Preset, given: Sequence[str] | None, protocol: Protocol | None
) -> Settings:
    """The protocol's, if it says so, else the model's with what is given in its place."""
    changes = parse_set(given)
    with reported_as("--protocol"):
        fixed = None if protocol is None else protocol.settings(preset)
    with _named_setting("--set"):
        settings = (fixed or preset.settings).replace(preset.architecture.seq_len, **changes)
    if fixed is not None and settings != fixed:
        assert protocol is not None
        raise bad("--set", f"{', '.join(changes)}; the protocol {protocol.name} says what is set")
    return settings


@contextmanager
def _named_setting(option: str) -> Iterator[None]:
    """An error of a setting names it, and the option that sets all of them."""
    try:
        yield
    except ArgumentError as error:
        raise bad(option, str(error)) from None


def vary_settings(
    settings: Settings, seq_len: int, changes: Sequence[dict[str, object]]
) -> list[Settings]:
    """One for each of these changes."""
    with _named_setting("--vary"):
        return [settings.replace(seq_len, **change) for change in changes]


def load_model(
    checkpoint: Checkpoint, vae: str | None, dtype: str | None, device: str, place: Place
) -> Pipeline:
    """On the device of this process: cuda means that of its local rank."""
    found = check_device(f"cuda:{place.local_rank}" if device == "cuda" else device)
    tokenizer = loading.open_tokenizer(vae, checkpoint)
    return loading.load_model(checkpoint, tokenizer, dtype, device=found)


def this_place() -> Place:
    with reported_as("RANK"):
        return Place.here()


@contextmanager
def resumable(what: str) -> Iterator[None]:
    """Ctrl-C, and a disk that is full, leave what is finished: the line says so."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ArgumentError) or is_out_of_memory(error):
            raise
        raise ValueError(f"{error}; {what}") from None
    except KeyboardInterrupt:
        echo(f"interrupted: {what}", err=True)
        raise typer.Exit(startup.INTERRUPTED) from None
