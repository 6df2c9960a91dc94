"""How images were made: what their files say of it, and what makes them again."""

import dataclasses
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import torch

from marfast import hardware
from marfast._version import __version__
from marfast.checkpoints import Settings
from marfast.checkpoints.weights_hash import tokenizer_hash, weights_hash
from marfast.errors import ArgumentError
from marfast.generation.loaded import Loaded
from marfast.ops import choice
from marfast.validation import differences, names, one_of, text, validated, whole

Maker = Literal["generate", "edit", "outpaint"]


def _seeds(given: Any) -> tuple[int, ...]:
    if isinstance(given, list | tuple):
        return tuple(map(whole(0, 2**32 - 1), given))
    raise ValueError("allowed is a list of seeds")


def _seed(given: Any) -> int | None:
    return None if given is None else whole(0, 2**32 - 1)(given)


def _optional(given: Any) -> int | None:
    return None if given is None else whole(1)(given)


def _backends(given: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise ValueError("allowed is an object")
    return {text(op): names(found) for op, found in given.items()}


Text = Annotated[str, text]
Count = Annotated[int, whole(0)]
Flag = Annotated[bool, one_of(False, True)]


@dataclass(frozen=True)
class Provenance:
    """Images `first` to `first` + `count` − 1 of a batch, and all that decides what they are."""

    command: Annotated[Maker, one_of("generate", "edit", "outpaint")]
    model: Text
    """As it was named, but for the folders of an absolute path."""
    weights: Text
    """Their SHA-256; empty where they had changed when it was asked for."""
    tokenizer: Text
    """That of the tokenizer's, or what it is; empty without one."""
    labels: Text
    """Of the batch, as `marfast generate --labels` takes them: "0-9,none"."""
    per_label: Annotated[int, whole(1)]
    seed: Annotated[int | None, _seed]
    """None where the global generators were drawn from, or each image had a seed of its own."""
    seed_per_image: Flag
    """Whether image i of the batch has the seed `seed` + i."""
    seeds: Annotated[tuple[int, ...], _seeds]
    """Of each image of the batch, where they are others than these."""
    settings: Annotated[Settings, partial(validated, Settings)]
    dtype: Text
    part: Annotated[int, whole(1)]
    """Images that were computed at a time."""
    first: Count
    count: Annotated[int, whole(1)]
    marfast: Text
    torch: Text
    device: Text
    processor: Text
    threads: Annotated[int, whole(1)]
    backends: Annotated[Mapping[str, tuple[str, ...]], _backends]
    """Of each op; none where graphs were replayed."""
    columns: Annotated[int | None, _optional] = None
    """Of a grid of them."""
    scale: Annotated[int | None, _optional] = None
    """Of the pixels of a file."""

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "Provenance":
        """From what `to_dict` returned; ArgumentError, naming `file`, for anything else."""
        try:
            found: Provenance = validated(cls, said)
        except ArgumentError as error:
            raise ArgumentError("file", f"what it says of its images: {error}") from None
        return found

    @property
    def each_label(self) -> list[int | None]:
        """Of images `first` and following."""
        labels: list[int | None] = []
        for part in self.labels.split(","):
            low, _, high = part.partition("-")
            labels += [None] if low == "none" else range(int(low), int(high or low) + 1)
        each = [label for label in labels for _ in range(self.per_label)]
        return each[self.first : self.first + self.count]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def and_then(self, more: "Provenance") -> "Provenance":
        """Of these images and those that follow them."""
        return dataclasses.replace(more, first=self.first, count=self.count + more.count)

    def differences(self, other: "Provenance", names: Sequence[str]) -> list[str]:
        """Where the other differs in these fields, as "name ours, not theirs"."""
        return differences(_flat(self, names), _flat(other, names))


def _flat(of: Provenance, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(of, name) for name in names}
    settings = values.pop("settings", None)
    return values | (asdict(settings) if settings is not None else {})


def listed(labels: Sequence[int | None]) -> str:
    """Labels as `marfast generate --labels` takes them: rising ones as ranges."""
    parts: list[tuple[int, int] | None] = []
    for label in labels:
        last = parts[-1] if parts else None
        if label is not None and last is not None and label == last[1] + 1:
            parts[-1] = last[0], label
        else:
            parts.append(None if label is None else (label, label))
    return ",".join(
        "none" if part is None else f"{part[0]}-{part[1]}" if part[1] > part[0] else str(part[0])
        for part in parts
    )


def repeated(labels: Sequence[int | None]) -> tuple[str, int]:
    """`listed` labels, and how many of each there are in a row: 3, 3, 4, 4 is "3-4" and 2."""
    count = next((i for i, label in enumerate(labels) if label != labels[0]), len(labels))
    for each in (count, 1):
        firsts = labels[::each]
        if [label for label in firsts for _ in range(each)] == [*labels]:
            return listed(firsts), each
    raise AssertionError("once each always fits")


class Making:
    """One run of a model: what its images' provenance is told from, once that is asked for.

    It holds the model weakly, and reads its weights then: a hash of them takes seconds a gigabyte.
    """

    def __init__(
        self,
        loaded: Loaded,
        command: Maker,
        labels: Sequence[int | None],
        seed: int | Sequence[int] | None,
        settings: Settings,
        part: int,
    ):
        module, tokenizer = loaded.model.module, loaded.tokenizer
        self._module = _weak(module)
        self._versions = _versions(module.parameters())
        self._tokenizer = None if tokenizer is None else _weak(tokenizer)
        self._inputs = command, labels, seed
        self.backends: dict[str, set[str]] = {}
        self._plain: dict[str, Any] = {
            "model": loaded.report.name if loaded.report else "",
            "settings": settings,
            "dtype": str(loaded.model.dtype or torch.float32).removeprefix("torch."),
            "part": part,
            "marfast": __version__,
            "torch": str(torch.__version__),
            "device": loaded.model.device.type,
            "processor": hardware.name_of(loaded.model.device),
            "threads": torch.get_num_threads(),
        }

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notes the backends that run inside."""
        with choice.used() as used:
            yield
        for op, found in used.items():
            self.backends.setdefault(op, set()).update(found)

    def of(self, first: int, count: int) -> Provenance:
        """Some images'."""
        backends = {op: tuple(sorted(found)) for op, found in sorted(self.backends.items())}
        return dataclasses.replace(self._whole, first=first, count=count, backends=backends)

    @cached_property
    def _whole(self) -> Provenance:
        command, labels, seed = self._inputs
        text, per_label = repeated(labels)
        return Provenance(
            command=command,
            weights=self._weights(),
            tokenizer="" if self._tokenizer is None else _hash_of_tokenizer(self._tokenizer()),
            labels=text,
            per_label=per_label,
            **_seeds_of(seed),
            **self._plain,
            first=0,
            count=len(labels),
            backends={},
        )

    def _weights(self) -> str:
        module = self._module()
        if module is None or _versions(module.parameters()) != self._versions:
            return ""
        return weights_hash(module.state_dict())


def _hash_of_tokenizer(tokenizer: Any) -> str:
    return "" if tokenizer is None else tokenizer_hash(tokenizer)


def _weak(thing: Any) -> Any:
    try:
        return weakref.ref(thing)
    except TypeError:  # a tokenizer of any class
        return lambda: thing


def _versions(tensors: Iterable[torch.Tensor]) -> list[tuple[int, int]]:
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _seeds_of(seed: int | Sequence[int] | None) -> dict[str, Any]:
    if seed is None or isinstance(seed, int):
        return {"seed": seed, "seed_per_image": False, "seeds": ()}
    if [*seed] == seeds_from(seed[0], len(seed)):
        return {"seed": seed[0], "seed_per_image": True, "seeds": ()}
    return {"seed": None, "seed_per_image": False, "seeds": tuple(seed)}


def seeds_from(seed: int, images: int) -> list[int]:
    """A seed for each image of a batch: one more than the one before."""
    return [(seed + i) % 2**32 for i in range(images)]
