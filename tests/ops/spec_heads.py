"""Heads of any spec: drawn at random, and computed in float64 by formulas that know of no op."""

import math
import random
from typing import Any

import torch
from torch import Tensor

from marfast.ops.head import HeadShape
from marfast.reference import HeadSpec
from marfast.reference.head_weights import layout
from marfast.reference.timesteps import timestep_embedding

CHOICES: dict[str, tuple[Any, ...]] = {
    "norm": ("layer", "rms", "std"),
    "affine": (True, False),
    "eps": (1e-6, 1e-3),
    "norm_after": (False, True),
    "activation": ("silu", "gelu", "swiglu"),
    "bias": (True, False),
    "share": (1, 2, 3),
    "order": ("shift scale gate", "scale shift gate", "gate shift scale", "scale gate shift"),
    "modulation_silu": (True, False),
    "variance": (False, True),
    "times": (1, 2),
    "time_norm": ("none", "layer", "rms", "std"),
    "time_scale": (1.0, 1000.0),
    "condition": ("linear", "mlp"),
}


def drawn_specs(count: int) -> list[HeadSpec]:
    """Specs of which each choice occurs about equally often: columns shuffled on their own."""
    draw = random.Random(0)
    columns = {}
    for name, values in CHOICES.items():
        column = [values[i % len(values)] for i in range(count)]
        draw.shuffle(column)
        columns[name] = column
    return [HeadSpec(**{name: columns[name][i] for name in columns}) for i in range(count)]


ONE_CHOICE = [HeadSpec(**{name: values[-1]}) for name, values in CHOICES.items()]
SPECS = [*ONE_CHOICE, *drawn_specs(12)]


def shape_of(spec: HeadSpec, seed: int = 0, width: int = 40, depth: int = 4) -> HeadShape:
    """Sizes that are no multiples of a vector, some of them."""
    return HeadShape(5 + seed % 3, 24, width, depth, 18, (width, 33, 70)[seed % 3])


def drawn_weights(spec: HeadSpec, shape: HeadShape, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for (name, _), sizes in zip(layout(spec, shape.depth), shape.expected(spec), strict=True):
        values = torch.randn(sizes, generator=generator)
        if len(sizes) == 2:
            weights.append(values / math.sqrt(sizes[1]))
        else:
            weights.append(0.2 * values + float(name.endswith("weight")))
    return weights


def denoise_args(spec: HeadSpec, rows: int = 5, seed: int = 0, **sizes: Any) -> tuple[Any, ...]:
    """All arguments of `denoise`, without `packed`."""
    shape = shape_of(spec, seed, **sizes)
    generator = torch.Generator().manual_seed(seed + 100)
    t = torch.rand((rows, spec.times)[: 1 + (spec.times > 1)], generator=generator)
    x = torch.randn(rows, shape.channels, generator=generator)
    cond = torch.randn(rows, shape.condition, generator=generator)
    return x, t, cond, drawn_weights(spec, shape, seed), None, str(spec)


def exact(x: Tensor, t: Tensor, cond: Tensor, weights: list[Tensor], spec: HeadSpec) -> Tensor:
    """A head of 4 blocks in float64."""
    depth = 4
    names = [name for name, _ in layout(spec, depth)]
    p = dict(zip(names, (weight.double() for weight in weights), strict=True))

    def linear(v: Tensor, name: str) -> Tensor:
        y = v @ p[f"{name}.weight"].T
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def norm(v: Tensor, name: str, kind: str, eps: float) -> Tensor:
        centred = v - v.mean(-1, keepdim=True)
        if kind == "layer":
            y = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        elif kind == "rms":
            y = v / (v.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        else:
            y = v / (centred.pow(2).sum(-1, keepdim=True) / (v.shape[-1] - 1) + eps).sqrt()
        y = y * p[f"{name}.weight"] if f"{name}.weight" in p else y
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def silu(v: Tensor) -> Tensor:
        return v * v.sigmoid()

    def activation(v: Tensor) -> Tensor:
        if spec.activation == "gelu":
            return v * 0.5 * (1 + torch.erf(v / math.sqrt(2)))
        half = v.shape[-1] // 2
        return silu(v[:, :half]) * v[:, half:] if spec.activation == "swiglu" else silu(v)

    def modulated(v: Tensor, parts: dict[str, Tensor]) -> Tensor:
        return v * (1 + parts["scale"]) + parts["shift"]

    frequencies = weights[0].shape[1]
    y = torch.zeros(len(x), len(p["input_proj.weight"]), dtype=torch.float64)
    for i in range(spec.times):
        name = "time_embed" if spec.times == 1 else f"time_embed.{i}"
        now = (t if spec.times == 1 else t[:, i]).float() * spec.time_scale
        e = timestep_embedding(now, frequencies).double()
        e = linear(silu(linear(e, f"{name}.mlp.0")), f"{name}.mlp.2")
        if spec.time_norm != "none":
            e = norm(e, f"{name}.mlp.3", spec.time_norm, spec.time_eps)
        y = y + e / spec.times
    z = cond.double()
    if spec.condition == "mlp":
        y = y + linear(silu(linear(z, "cond_embed.0")), "cond_embed.2")
    else:
        y = y + linear(z, "cond_embed")
    if spec.modulation_silu:
        y = silu(y)
    order = spec.order.split()
    h = linear(x.double(), "input_proj")
    for b in range(depth):
        own = f"res_blocks.{b - b % spec.share}.adaLN_modulation.1"
        parts = dict(zip(order, linear(y, own).chunk(3, -1), strict=True))
        block = f"res_blocks.{b}"
        inner = modulated(norm(h, f"{block}.in_ln", spec.norm, spec.eps), parts)
        inner = linear(activation(linear(inner, f"{block}.mlp.0")), f"{block}.mlp.2")
        if spec.norm_after:
            inner = norm(inner, f"{block}.mlp.3", spec.norm, spec.eps_after)
        h = h + parts["gate"] * inner
    order.remove("gate")
    ends = linear(y, "final_layer.adaLN_modulation.1").chunk(2, -1)
    h = modulated(norm(h, "none", spec.norm, spec.eps), dict(zip(order, ends, strict=True)))
    return linear(h, "final_layer.linear")
