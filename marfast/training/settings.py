"""What decides a run's weights, and how a session of it goes: each option stated once.

A field's annotation has its check and what it means; the command line and the docs read both here.
It needs no torch.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from marfast.errors import ArgumentError
from marfast.validation import number, one_of, validated, whole

_share = number(0, 1)


def _rates(given: Any) -> tuple[float, ...]:
    """Of averages; 0 is none."""
    allowed = "allowed are different rates from 0 to below 1; 0 is none"
    try:
        rates = [_share(rate) for rate in ([given] if isinstance(given, float) else given)]
    except (TypeError, ValueError):
        raise ValueError(allowed) from None
    if 1.0 in rates or len({*rates}) < len(rates):
        raise ValueError(allowed)
    return tuple(rate for rate in rates if rate)


@dataclass(frozen=True)
class TrainSettings:
    """What decides a run's weights, beside model, data and device. The defaults are for small
    models; `RECIPES` has the paper's."""

    epochs: Annotated[int, whole(1, 10**9), "Passes over the data set."] = 100
    batch: Annotated[int, whole(1, 10**6), "Images a step, of all processes together."] = 64
    parts: Annotated[
        int | None,
        whole(1, 10**6),
        "Parts that a batch is computed in, each with its own random numbers. They decide the "
        "result, however many processes there are. [default: a part a process]",
    ] = None
    lr: Annotated[float, number(0, 1e3, above=True), "Learning rate after warm-up."] = 8e-4
    warmup: Annotated[float, number(0, 1e6), "Epochs of linear warm-up from 0."] = 1.0
    schedule: Annotated[
        Literal["constant", "cosine"],
        one_of("constant", "cosine"),
        "Learning rate after warm-up: constant, or by a cosine to --min-lr at the last epoch.",
    ] = "constant"
    min_lr: Annotated[float, number(0, 1e3), "Where the cosine ends."] = 0.0
    weight_decay: Annotated[
        float,
        number(0, 1e3),
        "AdamW's, of the original's parameters: all but biases, vectors and the head.",
    ] = 0.02
    beta1: Annotated[float, number(0, 0.999999), "AdamW's."] = 0.9
    beta2: Annotated[float, number(0, 0.999999), "AdamW's."] = 0.95
    clip: Annotated[float, number(0, 1e9), "Largest norm of all gradients; 0 is any."] = 3.0
    ema: Annotated[
        tuple[float, ...],
        _rates,
        "Rate of an average of the weights; repeatable. The first is the model that is loaded; 0 "
        "is none.",
    ] = (0.999,)
    ema_warmup: Annotated[
        bool,
        one_of(False, True),
        "After n steps an average's rate is at most (1 + n) / (10 + n), so that the first weights "
        "are soon forgotten.",
    ] = True
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        one_of("float32", "bfloat16"),
        "What products are computed in, as under autocast.",
    ] = "float32"
    grad_checkpointing: Annotated[
        bool, one_of(False, True), "Compute activations again in the backward: less memory."
    ] = False
    dropout: Annotated[
        float, number(0, 0.999999), "In attention and after projections of the transformer."
    ] = 0.0
    label_drop: Annotated[float, _share, "Share of images whose class is hidden."] = 0.1
    mask_min: Annotated[float, _share, "Least share of masked tokens."] = 0.7
    mul: Annotated[
        int, whole(1, 1024), "Timesteps of the head for each token in a step (diffusion_batch_mul)."
    ] = 4
    flip: Annotated[bool, one_of(False, True), "Mirror half of the images."] = True
    seed: Annotated[int, whole(0, 2**32 - 2**20), "Of all random numbers."] = 0

    def replace(self, **changes: Any) -> "TrainSettings":
        """A copy with the changes that are not None; ArgumentError names the setting."""
        given = {name: value for name, value in changes.items() if value is not None}
        new: TrainSettings = validated(TrainSettings, self.to_dict() | given)
        if new.parts is not None and new.batch % new.parts:
            raise ArgumentError("parts", new.parts, f"allowed are divisors of batch, {new.batch}")
        return new

    def to_dict(self) -> dict[str, Any]:
        """Plain data, of which `TrainSettings().replace` makes the same."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


@dataclass(frozen=True)
class Session:
    """How a run is gone on with this time; none of it changes the weights of a step."""

    minutes: Annotated[
        float | None,
        number(0, 1e7, above=True),
        "Stop after so long; the run goes on with --resume. [default: at the last epoch]",
    ] = None
    save_minutes: Annotated[float, number(0, 1e7), "Between checkpoints."] = 10.0
    sample_minutes: Annotated[
        float | None,
        number(0, 1e7),
        "Between sheets of generated images. [default: none are made]",
    ] = None
    log_steps: Annotated[int, whole(1, 10**9), "Steps of a row of the log."] = 50
    workers: Annotated[int, whole(1, 1024), "Threads that read data, ahead of training."] = 4

    @classmethod
    def of(cls, **given: Any) -> "Session":
        """What is None is the default; ArgumentError names the option."""
        session: Session = validated(cls, {k: v for k, v in given.items() if v is not None})
        return session


PAPER = TrainSettings(epochs=400, batch=2048, warmup=100.0, ema=(0.9999,), dropout=0.1)
"""MAR section 4 and the original's commands, in bfloat16 or float32 where it has float16."""

RECIPES: Mapping[str, TrainSettings] = {
    "mar_base": PAPER,
    "mar_large": PAPER,
    "mar_huge": PAPER,
    "fashion-mnist": TrainSettings(
        epochs=100, batch=64, warmup=0.3, mul=2, schedule="cosine", flip=False
    ),
}


def recipe(name: str | None) -> TrainSettings:
    """Of the preset of this name; of any other model the defaults."""
    return RECIPES.get(name or "", TrainSettings())


def meaning(kind: type) -> dict[str, str]:
    """What each field of one of these classes means."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[1] for name, hint in hints.items()}
