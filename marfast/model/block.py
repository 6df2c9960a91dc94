"""A transformer block through the ops: the block's own parameters, `fused_linear` and attention."""

from typing import Any

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.model.packing import Packing, cpu_kernels_take


def _pack(weights: Any) -> Tensor:
    return ops.pack_linear(*weights)


def _parts(owner: Any, *names: str) -> list[Any]:
    return [getattr(owner, name, None) for name in names]


def _is_identity(module: Any) -> bool:
    return module is None or isinstance(module, nn.Identity)


def is_plain_block(block: Any) -> bool:
    """Whether `block` has the parts of `reference.transformer.Block`, by its names, and no others
    that act (the reference's block, or timm's without its options), and nobody hooked into it."""
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
        and all(type(norm) is nn.LayerNorm and norm.bias is not None for norm in norms)
        and type(activation) is nn.GELU
        and activation.approximate == "none"
        and all(map(_is_identity, extras))
        and not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())
    )


class FastLinear:
    """One linear layer with what stands round it, and its packed weights."""

    def __init__(self) -> None:
        self._packing = Packing(_pack)

    def update(self, linear: nn.Linear, norm: Any = None, gelu: bool = False) -> None:
        """Take these modules' weights as they are now."""
        self.norm, self.gelu = norm, gelu
        (self.weight, self.bias), self._packed = self._packing.of([linear.weight, linear.bias])

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
            packed=self._packed,
        )


class FastBlock:
    """A block [R, L, D] -> [R, L, D]; with `queries` [R, n], only those positions -> [R, n, D].

    Runs the module's own code where the kernels can't run, or where it is no plain block.
    """

    def __init__(self) -> None:
        self.qkv, self.proj, self.fc1, self.fc2 = (FastLinear() for _ in range(4))
        self.by_kernels = False

    def update(self, block: Any) -> None:
        """Take this block's weights as they are now. To be called once in each generation."""
        self.block = block
        self.by_kernels = (
            is_plain_block(block)
            and block.attn.qkv.weight.dtype == torch.float32
            and cpu_kernels_take(block.attn.qkv.weight)
        )
        if self.by_kernels:
            self.qkv.update(block.attn.qkv, block.norm1)
            self.proj.update(block.attn.proj)
            self.fc1.update(block.mlp.fc1, block.norm2, gelu=True)
            self.fc2.update(block.mlp.fc2)

    def __call__(self, x: Tensor, rows: Tensor, queries: Tensor | None = None) -> Tensor:
        if not self.by_kernels:
            x = self.block(x)
            return x if queries is None else x[rows, queries]
        batch, length, width = x.shape
        qkv = self.qkv(x.flatten(0, 1)).view(batch, length, 3, self.block.attn.num_heads, -1)
        attended = ops.attention(qkv.to(self.qkv.weight.dtype), queries).to(x.dtype)
        x = x if queries is None else x[rows, queries]
        flat = self.proj(attended.view(-1, width), residual=x.flatten(0, 1))
        flat = self.fc2(self.fc1(flat), residual=flat)
        return flat.view(x.shape)
