"""The transformer block of MAR's encoder and decoder: a pre-norm ViT block (arXiv 2010.11929).

Parameter names and the order of random draws (dropout) are those of timm's `Block`.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]


def attention(
    qkv: Tensor, dropout_p: float = 0.0, queries: Tensor | None = None, causal: bool = False
) -> Tensor:
    """softmax(QKᵀ/√hd)V from a packed projection: qkv [B, L, 3, H, hd] -> [B, L, H·hd], or of that
    the positions `queries` [B, Lq] alone. causal: a position sees itself and those before it."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=causal)
    out = out.transpose(1, 2).flatten(2)
    if queries is None:
        return out
    return out.gather(1, queries[..., None].expand(-1, -1, out.shape[2]))


def fused_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    residual: Tensor | None = None,
    gelu: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """residual + GELU(LN(x) Wᵀ + b), what is not asked for left out: x [R, K] -> [R, J]. Under a
    weight of half precision the product and GELU are computed in it, as autocast does."""
    h = x if norm_weight is None else F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    h = F.linear(h.to(weight.dtype), weight, bias)
    h = (F.gelu(h) if gelu else h).to(x.dtype)
    return h if residual is None else residual + h


class Attention(nn.Module):
    """Multi-head self-attention: [B, L, D] -> [B, L, D]."""

    def __init__(self, dim: int, num_heads: int, attn_drop: float, proj_drop: float):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: {num_heads} does not divide the embedding width {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        out = attention(qkv, self.attn_drop.p if self.training else 0.0)
        projected: Tensor = self.proj_drop(self.proj(out))
        return projected


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))): [B, L, D] -> [B, L, D]."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))
        return out


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)): [B, L, D] -> [B, L, D]."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        norm_layer: NormLayer = nn.LayerNorm,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, attn_drop, proj_drop)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x
