"""Ming-UniVision (arXiv 2510.06590): MAR's block with SwiGLU, Euler's steps down from t = 1, and
guidance of text and of an image, one token at a time."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.drop_in.heads.loop import Asked, FastLoop, example_rows
from marfast.drop_in.methods import FastForward, Own
from marfast.model.head_kind import HeadKind, Named, has_variance
from marfast.reference.head_spec import HeadSpec
from marfast.reference.samplers import Table, flow_steps

_MLP = re.compile(r"(res_blocks\.\d+\.mlp)\.([02])\.(\w+)")


def _spec(net: Any, found: Named) -> HeadSpec:
    return HeadSpec(activation="swiglu", time_scale=1000.0, variance=has_variance(found))


def _theirs(name: str, spec: HeadSpec) -> Sequence[str]:
    if (ours := _MLP.fullmatch(name)) is None:
        return (name,)
    mlp, layer, last = ours.groups()
    return (f"{mlp}.{'w12' if layer == '0' else 'w3'}.{last}",)


def _has_swiglu(net: Any) -> bool:
    mlps = [getattr(block, "mlp", None) for block in net.res_blocks]
    return bool(mlps) and hasattr(mlps[0], "w12")


MINGS = HeadKind(
    "Ming-UniVision's",
    ("time_embed", "cond_embed", "res_blocks"),
    built=_has_swiglu,
    spec=_spec,
    theirs=_theirs,
    largest_time=1.0,
)


class FastMingForward(FastForward):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, C]` of its SimpleMLPAdaLN."""

    kind = MINGS


class FastMingSample(FastLoop):
    """A RectifiedFlowLoss's `sample` of one token: of two rows, text and none; of three, text,
    none, and the image alone. Its own loop runs where guidance is renormalised: that divides by a
    norm of all of a token's channels in each step, which no row of a table says."""

    kind = MINGS

    def __call__(
        self,
        module: Any,
        own: Own,
        z: Tensor,
        temperature: float = 1.0,
        text_cfg: float = 1.0,
        image_cfg: float = 1.0,
        cfg_renorm_type: str | None = None,
        time_shifting_factor: float | None = None,
    ) -> Tensor:
        options = (cfg_renorm_type, time_shifting_factor)
        return self.run(module, own, z, temperature, text_cfg, image_cfg, *options)

    def asked(self, module: Any, *args: Any) -> Asked | str:
        z, temperature, text_cfg, image_cfg, renorm, shift = args
        rows = len(z)
        if renorm == "channel":
            return "renormalised guidance"
        if rows not in (2, 3) or text_cfg == 1.0:
            return "no guidance"
        device, channels = z.device, module.in_channels
        table = _table(module.num_sampling_steps, float(shift) if shift else None)

        def draw() -> tuple[Tensor, Tensor]:
            noise = torch.randn(1, channels, dtype=torch.float32, device=device) * temperature
            return noise, noise.new_zeros(len(table.timesteps), 1, channels)

        return Asked(
            cond=z if rows == 2 else z[[0, 2, 1]],
            table=table,
            draw=draw,
            result=lambda tokens: tokens.repeat(rows, 1),
            scales=(text_cfg, image_cfg)[: rows - 1],
            mode=bool(shift),
        )

    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        z = example_rows(asked.branches, asked.cond.shape[1], net.cond_embed.weight.device)
        return z, 0.9, 3.0, 1.5, None, 2.0 if asked.mode else None


@functools.lru_cache(maxsize=16)
def _table(steps: int, shift: float | None) -> Table:
    """Its t is 1 - t of a flow's table."""
    if shift is None:
        told = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32, device="cpu")[:-1]
        dt = torch.full((steps,), 1.0 / steps, dtype=torch.float64, device="cpu")
    else:
        even = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float32, device="cpu")
        times = 1 - even / (even + shift - shift * even)
        told, dt = times[:-1], times[:-1] - times[1:]
    t = 1.0 - told.double().numpy()
    return flow_steps(t, dt.double().numpy(), t < 0, told)
