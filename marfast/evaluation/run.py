"""A run: everything that decides what images it makes, and the folder that says so."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch

from marfast._version import __version__
from marfast.checkpoints import Settings
from marfast.checkpoints.weights_hash import tokenizer_hash, weights_hash
from marfast.errors import ArgumentError, MissingFile
from marfast.files import replacing
from marfast.generation import Pipeline
from marfast.generation.parts import parts_of
from marfast.validation import differences, one_of, text, validated, whole

SHARD = 1000
"""Images of a shard at most, unless told otherwise."""
SHARDS = 10
"""Shards at least, where there are so many images."""
SEEDS = 2**32
BETWEEN_RUNS = 2654435769  # 2³² by the golden ratio: any few runs' seeds are far from each other

MANIFEST = "manifest.json"

Kind = Literal["tar", "npz", "png", "none"]


Whole = Annotated[int, whole(1)]
Text = Annotated[str, text]


@dataclass(frozen=True)
class Run:
    """`count` images of a model, the classes in turn: image i is of class i mod `classes`, and its
    seed follows from i. Shard s has the images from `shard`·s on; of them, `part` at a time are
    computed. So who makes an image, and beside what, is the same whoever runs."""

    count: Whole
    seed: Annotated[int, whole(0, SEEDS - 1)]
    kind: Annotated[Kind, one_of(*get_args(Kind))]
    """How images are kept; with "none", what a judge saw in them is all that is."""
    shard: Whole
    part: Whole
    classes: Whole
    side: Whole
    channels: Whole
    settings: Annotated[Settings, partial(validated, Settings)]
    dtype: Text
    device: Text
    model: Text
    """The name of its preset, if there is one."""
    weights: Text
    """Their hash."""
    tokenizer: Text
    """Its hash; empty for a model of pixels."""

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        count: int,
        *,
        settings: Settings | None = None,
        seed: int = 0,
        kind: Kind = "tar",
        shard: int | None = None,
        part: int | None = None,
    ) -> "Run":
        """Of a loaded model that makes images. ArgumentError for anything that is out of range."""
        if not pipeline.makes_images:
            raise ArgumentError("model", "it makes latents", "load it with its tokenizer")
        module = pipeline.model.module
        shard = max(1, min(SHARD, -(-count // SHARDS))) if shard is None else shard
        tokenizer = pipeline.tokenizer
        run: Run = validated(
            cls,
            {
                "count": count,
                "seed": seed,
                "kind": kind,
                "shard": shard,
                "part": min(pipeline.largest_part, shard) if part is None else part,
                "classes": module.num_classes,
                "side": pipeline.side,
                "channels": pipeline.channels,
                "settings": asdict(settings or pipeline.settings),
                "dtype": str(pipeline.model.dtype or torch.float32).removeprefix("torch."),
                "device": pipeline.model.device.type,
                "model": (pipeline.report and pipeline.report.preset) or "",
                "weights": weights_hash(module.state_dict()),
                "tokenizer": "" if tokenizer is None else tokenizer_hash(tokenizer),
            },
        )
        return run

    @property
    def shards(self) -> list[range]:
        """The images of each."""
        return parts_of(self.count, self.shard)

    def labels(self, ids: range) -> list[int]:
        return [i % self.classes for i in ids]

    def seeds(self, ids: range) -> list[int]:
        """A seed for each image: those of one run differ, and those of runs of other seeds lie far
        away. Image i of the run of seed 0 has seed i."""
        return [(self.seed * BETWEEN_RUNS + i) % SEEDS for i in ids]

    def differences(self, other: "Run") -> list[str]:
        """Where the other differs, as "name ours, not theirs"."""
        return differences(_flat(self), _flat(other))

    def balance(self) -> str:
        """How many images each class has, for people."""
        each, more = divmod(self.count, self.classes)
        if not more:
            return f"{each} of each class"
        return f"{each} of each class, and one more of the first {more}"


def open_run(folder: Path, run: Run) -> None:
    """Make the folder the run's, or see that it is.

    ArgumentError, naming `out`, where it is another run's or nobody's.
    """
    file = folder / MANIFEST
    if not file.exists():
        strangers = [path.name for path in folder.glob("[!.]*")] if folder.is_dir() else []
        if strangers and not file.exists():  # another process may have written it by now
            said = f"{folder} has no {MANIFEST}, and {sorted(strangers)[0]} in it"
            raise ArgumentError("out", said, "allowed are a new folder and this run's own")
        try:
            with replacing(file) as unfinished:
                unfinished.write_text(json.dumps(_manifest(run), indent=1) + "\n")
            return
        except FileExistsError:
            pass
    if differ := read_run(folder).differences(run):
        raise ArgumentError("out", f"{folder} holds another run: {'; '.join(differ)}")


def read_run(folder: Path) -> Run:
    """The run whose folder it is; ArgumentError, naming `folder`, if it is none's."""
    file = folder / MANIFEST
    try:
        found = json.loads(file.read_text())["run"]
        run: Run = validated(Run, found)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile("folder", f"{file}: no such file; {folder} is no run's") from None
    except ArgumentError as error:
        raise ArgumentError("folder", f"{file}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError("folder", f"{file}: no manifest of a run ({error})") from None
    return run


def _manifest(run: Run) -> dict[str, Any]:
    """What was made, and by what: another version goes on with it all the same."""
    return {"run": asdict(run), "marfast": __version__, "torch": torch.__version__}


def _flat(run: Run) -> Mapping[str, Any]:
    values = {field.name: getattr(run, field.name) for field in fields(run)}
    return values | asdict(values.pop("settings"))
