"""Pocket-TTS (kyutai-labs/pocket-tts): MAR's block under one or two times, whose embeddings end in
a norm. Its loop is one step of the head, which is what is replaced."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.drop_in.methods import FastForward, Own
from marfast.model.head_kind import HeadKind, Named, has_variance
from marfast.reference.head_spec import HeadSpec


def _spec(net: Any, found: Named) -> HeadSpec:
    times = len(net.time_embed)
    if not times:
        raise ValueError("it is told no time")
    return HeadSpec(times=times, time_norm="std", variance=has_variance(found))


def _theirs(name: str, spec: HeadSpec) -> Sequence[str]:
    if spec.times == 1:
        name = name.replace("time_embed.", "time_embed.0.")
    return (name.replace("mlp.3.weight", "mlp.3.alpha"),)


def _forward(net: Any, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    times = t.reshape(len(t), -1, 1).to(x.dtype).unbind(1)
    output: Tensor = net.forward(cond, *times, x)
    return output


POCKETS = HeadKind(
    "Pocket-TTS's",
    ("time_embed", "cond_embed", "num_time_conds"),
    spec=_spec,
    theirs=_theirs,
    forward=_forward,
    largest_time=1.0,
)


class FastPocketForward(FastForward):
    """`forward(c [R, D], s [R, 1], t [R, 1], x [R, C]) -> [R, C]` of its SimpleMLPAdaLN; without s
    of one time."""

    kind = POCKETS

    def __call__(self, module: Any, own: Own, c: Tensor, *args: Tensor) -> Tensor:  # type: ignore[override]
        *times, x = args
        if any(time.shape != (len(x), 1) for time in times) or len(times) != len(module.time_embed):
            output: Tensor = own(c, *args)
            return output
        t = torch.cat(times, dim=1).float() if len(times) > 1 else times[0][:, 0].float()
        return self.denoise(module, lambda: own(c, *args), x, t, c)
