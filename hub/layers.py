"""Layers whose forwards `kernels.kernelize` gives to modules of the same names: LTH14/mar's, timm's
blocks without their options, and any with those parameters, which get no gradient."""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.model.block import FastBlock
from marfast.model.head_kind import MARS
from marfast.model.packing import Packing, ops_take

__all__ = ["Block", "FinalLayer", "ResBlock", "SimpleMLPAdaLN"]

Kept = TypeVar("Kept")
_KEPT: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def _kept(module: nn.Module, make: Callable[[], Kept]) -> Kept:
    """What is kept of a module from one call to the next: its packed weights."""
    if module not in _KEPT:
        _KEPT[module] = make()
    found: Kept = _KEPT[module]
    return found


class SimpleMLPAdaLN(nn.Module):
    """The head: x [R, C], t [R], c [R, D] -> [R, 2C], or [R, C] of one without variance."""

    has_backward = False
    can_torch_compile = False

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        found = MARS.parameters(self)
        weights, packed = _kept(self, lambda: Packing(ops.pack_head)).of(found.flat)
        out = ops.denoise(x, t, c.to(x.dtype), weights, packed, str(found.spec))
        return out.to(weights[0].dtype)


class ResBlock(nn.Module):
    """A block of the head: x, y [R, w] -> [R, w]."""

    has_backward = False
    can_torch_compile = False

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        own: Any = self
        shift, scale, gate = own.adaLN_modulation(y).to(x.dtype).chunk(3, dim=-1)
        first, last, norm = own.mlp[0], own.mlp[2], own.in_ln
        mlp = [first.weight, first.bias, last.weight, last.bias]
        (w1, b1, w2, b2), packed = _kept(self, lambda: Packing(_pack_mlp)).of(mlp)
        affine = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return ops.adaln_mlp(
            x, shift, scale, gate, *affine, w1, b1, w2, b2, eps=norm.eps, packed=packed
        )


class FinalLayer(nn.Module):
    """The head's last layer: x, c [R, w] -> [R, 2C]."""

    has_backward = False
    can_torch_compile = False

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        own: Any = self
        shift, scale = own.adaLN_modulation(c).to(x.dtype).chunk(2, dim=-1)
        normed = ops.layer_norm_modulate(x, shift, scale, eps=own.norm_final.eps)
        out: Tensor = own.linear(normed)
        return out


class Block(nn.Module):
    """A transformer block: x [B, L, D] -> [B, L, D]. Its own forward where the ops gain nothing:
    parameters of half precision, and CPUs without the package's kernels."""

    has_backward = False
    can_torch_compile = False

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self
        weight = own.attn.qkv.weight
        if weight.dtype == x.dtype == torch.float32 and ops_take(weight):
            return _kept(self, FastBlock).bound(self)(x)
        out: Tensor = type(self).forward(self, x)
        return out


def _pack_mlp(weights: Any) -> Tensor:
    return ops.pack_adaln_mlp(*weights)
