"""A transformer block through the ops: the block's own parameters, `fused_linear` and attention."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marfast import ops
from marfast.model.own import Verdicts, anyone_watches, is_touched, parts_of
from marfast.model.packing import Packing, ops_take
from marfast.model.trial import same, trial_of
from marfast.ops.choice import forced
from marfast.reference import transformer


def _pack(weights: Any) -> Tensor:
    return ops.pack_linear(*weights)


def _parts(owner: Any, *names: str) -> list[Any]:
    return [getattr(owner, name, None) for name in names]


def _is_identity(module: Any) -> bool:
    return module is None or isinstance(module, nn.Identity)


def is_plain_block(block: Any) -> bool:
    """Whether `block` has the parts of `reference.transformer.Block`, by its names, and no others
    that act (the reference's block, or timm's without its options), and nobody hooked into it."""
    parts = parts_of(block)
    attention, mlp = _parts(block, "attn", "mlp")
    linears = [*_parts(attention, "qkv", "proj"), *_parts(mlp, "fc1", "fc2")]
    norms = _parts(block, "norm1", "norm2")
    activation = getattr(mlp, "act", None)
    extras = [
        getattr(mlp, "norm", None),
        *_parts(attention, "q_norm", "k_norm"),
        *_parts(block, "ls1", "ls2", "drop_path1", "drop_path2"),
    ]
    return (
        all(type(linear) is nn.Linear and linear.bias is not None for linear in linears)
        and all(
            type(p) in (Tensor, nn.Parameter)
            for part in parts
            for p in part._parameters.values()
            if p is not None
        )
        and all(type(norm) is nn.LayerNorm and norm.bias is not None for norm in norms)
        and type(activation) is nn.GELU
        and activation.approximate == "none"
        and all(map(_is_identity, extras))
        and not any(map(is_touched, parts))
        and not any(part.training for part in parts if isinstance(part, nn.Dropout) and part.p)
        and not anyone_watches()
    )


@torch.no_grad()
def _known_answer(block: Any) -> str:
    """Why a plain block's own code has to run, by a copy on five positions; empty if it needn't."""
    try:
        trial = trial_of(block)
        attn, mlp, norm1, norm2 = trial.attn, trial.mlp, trial.norm1, trial.norm2
        weight = attn.qkv.weight
        count = 5 * weight.shape[1]
        x = torch.linspace(-1, 1, count, dtype=torch.float32, device=weight.device)
        x = x.sin().view(1, 5, -1)
        with torch.autocast(weight.device.type, enabled=False), torch.device("cpu"):
            theirs = trial.forward(x)
            qkv = _linear(x, attn.qkv, norm1).unflatten(-1, (3, attn.num_heads, -1))
            meant = x + _linear(transformer.attention(qkv), attn.proj)
            hidden = F.gelu(_linear(meant, mlp.fc1, norm2))
            meant = meant + _linear(hidden, mlp.fc2)
    except Exception as error:
        return f"its own code can't be tried: {type(error).__name__}: {error}"
    return "" if same(meant, theirs) else "it computes something else than MAR's block"


def _linear(x: Tensor, linear: Any, norm: Any = None) -> Tensor:
    if norm is not None:
        x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    return F.linear(x, linear.weight, linear.bias)


class BoundLinear:
    """A linear layer with what stands round it: x [R, K] -> [R, J]."""

    def __init__(self, linear: nn.Linear, packing: Packing, norm: Any = None, gelu: bool = False):
        (self.weight, self.bias), self.packed = packing.of([linear.weight, linear.bias])
        self.norm, self.gelu = norm, gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        norm = self.norm
        return ops.fused_linear(
            x.float(),
            self.weight,
            self.bias,
            norm_weight=None if norm is None else norm.weight,
            norm_bias=None if norm is None else norm.bias,
            residual=residual,
            gelu=self.gelu,
            eps=1e-6 if norm is None else norm.eps,
            packed=self.packed,
        )


Attend = Callable[[Tensor, Tensor | None], Tensor]
"""Attention as the op: qkv [R, L, 3, H, hd], queries [R, n] or None -> [R, n, H·hd]."""


def chosen_attention(qkv: Tensor, queries: Tensor | None) -> Tensor:
    """By whichever backend is chosen."""
    return ops.attention(qkv, queries)


def library_attention(qkv: Tensor, queries: Tensor | None) -> Tensor:
    """PyTorch's, where no backend is forced."""
    with ops.backend("torch") if forced() == "auto" else nullcontext():
        return ops.attention(qkv, queries)


class BoundBlock:
    """A block and its weights as they were: [R, L, D] -> [R, L, D]; with `queries` [R, n], only
    those positions -> [R, n, D]."""

    def __init__(
        self, block: Any, layers: Sequence[BoundLinear], attend: Attend = chosen_attention
    ):
        self.block = block
        self.layers = layers
        self.attend = attend

    @property
    def weights(self) -> list[Tensor]:
        """What the ops read, in the dtype that it is computed in."""
        return [tensor for layer in self.layers for tensor in (layer.weight, layer.bias)]

    @property
    def by_ops(self) -> bool:
        """Whether it runs by the ops, and not by the module's own code."""
        return bool(self.layers)

    def __call__(self, x: Tensor, queries: Tensor | None = None) -> Tensor:
        if not self.layers:
            x = self.block(x)
            return x if queries is None else _at(x, queries)
        project, proj, fc1, fc2 = self.layers
        batch, length, width = x.shape
        qkv = project(x.flatten(0, 1)).view(batch, length, 3, self.block.attn.num_heads, -1)
        attended = self.attend(qkv.to(project.weight.dtype), queries).to(x.dtype)
        x = x if queries is None else _at(x, queries)
        flat = proj(attended.view(-1, width), residual=x.flatten(0, 1))
        flat = fc2(fc1(flat), residual=flat)
        return flat.view(x.shape)


NEAR = 1 << 21
"""Numbers of an MLP's hidden layer that the CPU makes at a time: they stay in a cache."""


def through(blocks: Sequence[BoundBlock], x: Tensor, queries: Tensor | None = None) -> Tensor:
    """x [R, L, D] through all blocks -> [R, L, D]; with `queries` [R, n] -> [R, n, D], of the last
    block those positions alone. On a CPU some rows after the other, so that what is between the
    blocks stays near and is no new memory each time."""
    if not blocks:
        return x if queries is None else _at(x, queries)
    if x.device.type == "cpu" and all(block.by_ops for block in blocks):
        hidden = x.shape[1] * max(len(block.layers[2].bias) for block in blocks)
        near = max(1, NEAR // hidden)
        if near < len(x):
            wanted = [None] * len(x) if queries is None else queries.split(near)
            parts = zip(x.split(near), wanted, strict=False)
            return torch.cat([through(blocks, *part) for part in parts])
    for block in blocks[:-1]:
        x = block(x)
    return blocks[-1](x, queries)


def _at(x: Tensor, positions: Tensor) -> Tensor:
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x[rows, positions]


class FastBlock:
    """What is kept of a block from one generation to the next: packed weights."""

    def __init__(self, attend: Attend = chosen_attention) -> None:
        self.attend = attend
        self._packings = [Packing(_pack) for _ in range(4)]
        self._verdicts = Verdicts()

    def found(self) -> list[str]:
        """Why a block's own code runs, as uses found out."""
        return self._verdicts.known()

    def bind(self, block: Any) -> BoundBlock:
        """This block as it is now. Its own code runs where the ops gain nothing, where it is no
        plain block, and where it turns out to compute something else."""
        by_ops = (
            is_plain_block(block)
            and block.attn.qkv.weight.dtype == torch.float32
            and ops_take(block.attn.qkv.weight)
            and not self._verdicts.of(
                block, torch.get_default_dtype(), lambda: _known_answer(block)
            )
        )
        return self.bound(block) if by_ops else BoundBlock(block, ())

    def bound(self, block: Any) -> BoundBlock:
        """This block as it is now, by the ops, whatever its own code does."""
        qkv, proj, fc1, fc2 = self._packings
        return BoundBlock(
            block,
            (
                BoundLinear(block.attn.qkv, qkv, block.norm1),
                BoundLinear(block.attn.proj, proj),
                BoundLinear(block.mlp.fc1, fc1, block.norm2, gelu=True),
                BoundLinear(block.mlp.fc2, fc2),
            ),
            self.attend,
        )
