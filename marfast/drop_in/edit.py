"""`marfast.edit`: tokens of somebody else's MAR made anew."""

from typing import Any

import torch
from torch import Tensor, nn

from marfast.drop_in.install import installed
from marfast.drop_in.sample_tokens import FastSampleTokens, no_mar
from marfast.errors import ArgumentError
from marfast.generation.arguments import (
    Images,
    Labels,
    check_labels_of,
    check_mask,
    check_tensor,
)
from marfast.generation.edit import token_mask
from marfast.generation.progress import reporting
from marfast.generation.start import Start, groups


@torch.no_grad()
def edit(
    module: nn.Module,
    tokens: Images,
    mask: Images,
    labels: Labels | None = None,
    *,
    num_iter: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> Tensor:
    """Make some tokens of a MAR anew, and leave the others as they are: its `sample_tokens`, which
    begins with tokens that are known.

    Args:
        module: a MAR in eval mode: LTH14/mar's, `marfast.reference`'s, or any that `accelerate`
            takes, accelerated (what was packed is then kept) or not.
        tokens: what `sample_tokens` returns, [B, c, h, w], or as a sequence [B, L, C].
        mask: nonzero is made anew: of tokens, [B, L] or [B, rows, columns], or of the places of
            [B, c, h, w], [B, h, w] or [B, 1, h, w]; then a token is unknown if any of its places
            is. Images may differ in how many tokens are.
        labels: class indices, one for each image or one for all; None is no class.
        num_iter: iterations, of which an image takes at most one for each unknown token; None takes
            `sample_tokens`' default in proportion to the unknown tokens.
        progress: show a bar.
        settings: cfg, cfg_schedule and temperature, as of `sample_tokens`; `accelerate` takes
            another sampler.

    Random numbers are drawn as by `sample_tokens`, to whose result an edit of all tokens is equal;
    images with equally many unknown tokens are made together, one such group after another.

    Returns:
        Tokens in the form in which they were given, float32, on the module's device.

    Raises:
        TypeError: it is no MAR, or its code computes something else than MAR's.
        ValueError: an argument that is not allowed.
    """
    if reason := no_mar(module):
        raise TypeError(f"module: {type(module).__name__} is no MAR ({reason})")
    if module.training:
        raise ArgumentError("module", "it is in training mode", "call its eval() first")
    m: Any = module
    method = _method(module)
    chosen = method.settings_of(m, num_iter, **settings)
    height, width = m.seq_h * m.patch_size, m.seq_w * m.patch_size
    whole, sequence = ("B", m.vae_embed_dim, height, width), ("B", m.seq_len, m.token_embed_dim)
    given = check_tensor("tokens", tokens, [sequence, whole]).to(m.mask_token.device)
    batch, sides = len(given), (m.seq_h, m.seq_w)
    shapes = [
        (batch, m.seq_len),
        (batch, *sides),
        (batch, height, width),
        (batch, 1, height, width),
    ]
    found = check_mask(mask, shapes)
    grid = found.view(batch, *(sides if found.numel() == batch * m.seq_len else (height, width)))
    indices = check_labels_of(batch, labels, m.class_emb.num_embeddings).to(given.device)
    if reason := method.lacks(m) or method.why_not(
        m, bool(chosen.cfg != 1.0), chosen.cfg_schedule, bool((indices >= 0).any())
    ):
        raise TypeError(f"module: its own code would have to run: {reason}")

    is_sequence = given.dim() == 3
    result = (given if is_sequence else m.patchify(given)).clone()
    parts: list[tuple[list[int], Start]] = [*groups(result, token_mask(grid, sides, 0))]
    iterations = sum(start.settings(chosen, num_iter).num_iter for _, start in parts)
    with reporting(progress, iterations) as report:
        for images, start in parts:
            result[images] = method.tokens(
                m, indices[images], start.settings(chosen, num_iter), report, start
            )
    return result if is_sequence else m.unpatchify(result)


def _method(module: nn.Module) -> FastSampleTokens:
    method = installed(module).get(FastSampleTokens.name)
    return method if isinstance(method, FastSampleTokens) else FastSampleTokens("auto", None)
