"""What a per-token head computes, as named choices: MAR's, and those of the heads that followed it.

e = mean over its times of time_norm(W SiLU(W' sinusoids(time_scale t)))
y = SiLU(e + condition(z))
shift, scale, gate = W y + b                    once for each `share` blocks, in this `order`
x = x + gate MLP(modulate(norm(x)))             its MLP's output normalised where `norm_after`
out = W modulate(norm(x)) + b                   [C], or with a variance [2C]
"""

import functools
import math
from dataclasses import Field, dataclass, fields
from typing import Any

NORMS = ("layer", "rms", "std")
"""LayerNorm; x / √(mean x² + eps); x / √(variance + eps), which is unbiased. Rows keep their mean
in the last two."""

ALLOWED: dict[str, tuple[Any, ...]] = {
    "norm": NORMS,
    "activation": ("silu", "gelu", "swiglu"),
    "time_norm": ("none", *NORMS),
    "condition": ("linear", "mlp"),
}
KINDS = {bool: "True or False", int: "whole numbers", float: "finite numbers", str: "names"}
PARTS = ("shift", "scale", "gate")


@dataclass(frozen=True)
class HeadSpec:
    """A head's choices, MAR's by default; its sizes are read off its weights.

    `str(spec)` is what the ops take: the choices that differ from MAR's, such as
    "norm=rms, bias=False". ValueError names a choice that isn't allowed.
    """

    norm: str = "layer"
    """One of `NORMS`: of the blocks, and of the final layer."""
    affine: bool = True
    """Whether the blocks' norms have a weight (LayerNorm: and a bias); the final one has none."""
    eps: float = 1e-6
    norm_after: bool = False
    """An affine norm of the same kind on the MLP's output, too, before the gate."""
    eps_after: float = 1e-5
    activation: str = "silu"
    """One of "silu", "gelu" (without tanh) or "swiglu": SiLU of the first half of W₁'s outputs
    times the second half. The MLP may be of any width."""
    bias: bool = True
    """Whether linear layers have biases."""
    share: int = 1
    """How many consecutive blocks share a modulation, which the first of them has."""
    order: str = "shift scale gate"
    """How modulations are laid out; the final one leaves out the gate."""
    modulation_silu: bool = True
    """SiLU of e + condition(z), before the modulations."""
    variance: bool = True
    """2C outputs: the prediction, then the share v of σ's range; else C."""
    times: int = 1
    """How many times the head is told, each embedded by layers of its own and averaged: t is
    [R, times] where it isn't 1."""
    time_norm: str = "none"
    """An affine norm at the end of a time's embedding."""
    time_eps: float = 1e-5
    time_scale: float = 1.0
    """What t is multiplied by."""
    condition: str = "linear"
    """"linear", or "mlp": two layers with SiLU between them."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), _kind(field)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, value := float(value))
            if type(value) is not kind or value in (math.inf, -math.inf) or value != value:
                raise _not_allowed(field.name, value, KINDS[kind])
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise _not_allowed(name, getattr(self, name), ", ".join(allowed))
        if sorted(self.order.split()) != sorted(PARTS):
            raise _not_allowed("order", self.order, "shift, scale and gate in any order")
        for name in ("share", "times"):
            if getattr(self, name) < 1:
                raise _not_allowed(name, getattr(self, name), "numbers from 1")

    def __str__(self) -> str:
        own = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return ", ".join(f"{name}={value}" for name, value, default in own if value != default)

    @classmethod
    @functools.lru_cache(maxsize=64)
    def of(cls, text: str) -> "HeadSpec":
        """The spec that has this text. ValueError for another."""
        kinds = {field.name: _kind(field) for field in fields(cls)}
        given: dict[str, Any] = {}
        for choice in filter(None, text.split(", ")):
            name, _, value = choice.partition("=")
            if name not in kinds:
                known = ", ".join(kinds)
                raise ValueError(f"a head's spec has no choice {name!r}; known are {known}")
            try:
                kind = kinds[name]
                given[name] = {"True": True, "False": False}[value] if kind is bool else kind(value)
            except (KeyError, ValueError):
                raise _not_allowed(name, value, KINDS[kinds[name]]) from None
        return cls(**given)

    @property
    def gated(self) -> bool:
        """Whether W₁ has two outputs for each that W₂ reads."""
        return self.activation == "swiglu"

    @property
    def parts(self) -> tuple[str, ...]:
        """The order of a block's modulation."""
        return tuple(self.order.split())

    @property
    def final_parts(self) -> tuple[str, ...]:
        """That of the final layer's."""
        return tuple(part for part in self.parts if part != "gate")


def _kind(field: Field[Any]) -> type:
    return type(field.default)


def _not_allowed(name: str, given: object, allowed: str) -> ValueError:
    return ValueError(f"a head's {name} is {given!r}; allowed: {allowed}")


MAR_HEAD = HeadSpec()
