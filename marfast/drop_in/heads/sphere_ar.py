"""SphereAR (arXiv 2509.24335) and BitDance (2602.14041): blocks of SwiGLU, in groups that share a
modulation. SphereAR's head predicts a flow's velocity, BitDance's its x_0."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast.drop_in.heads.loop import Asked, FastLoop, drawn, example_rows
from marfast.drop_in.methods import FastForward, Own
from marfast.model.head_kind import HeadKind, Named, has_variance
from marfast.reference.head_spec import HeadSpec
from marfast.reference.samplers import Table, flow_steps

_OURS = re.compile(r"res_blocks\.(\d+)\.(in_ln|mlp\.0|mlp\.2|adaLN_modulation\.1)\.(\w+)")
_THEIRS = {"in_ln": "norm", "mlp.0": "w1", "mlp.2": "w2"}


def _spec(net: Any, found: Named) -> HeadSpec:
    return HeadSpec(
        activation="swiglu",
        order="scale shift gate",
        share=int(net.ada_ln_switch_freq),
        time_scale=1000.0,
        variance=has_variance(found),
    )


def _theirs(name: str, spec: HeadSpec) -> Sequence[str]:
    if (ours := _OURS.fullmatch(name)) is None:
        return (name.replace("adaLN_modulation.1", "ada_ln_modulation"),)
    block, part, last = ours.groups()
    if part in _THEIRS:
        return (f"res_blocks.{block}.{_THEIRS[part]}.{last}",)
    return (f"ada_ln_blocks.{int(block) // spec.share}.{last}",)


SPHERES = HeadKind(
    "SphereAR's",
    ("time_embed", "cond_embed", "ada_ln_blocks", "ada_ln_switch_freq"),
    spec=_spec,
    theirs=_theirs,
    largest_time=1.0,
)


class FastSphereForward(FastForward):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, C]` of an MlpEncoder."""

    kind = SPHERES


class FastSphereSample(FastLoop):
    """A DiffHead's `sample`: Euler–Maruyama, and a last step of Euler's. Compiled, as SphereAR has
    its steps, the module draws its noise by the compiler's own generator; these draw it as they are
    written."""

    kind = SPHERES
    last = 0.04

    def __call__(
        self, module: Any, own: Own, z: Tensor, cfg: float, num_sampling_steps: int
    ) -> Tensor:
        return self.run(module, own, z, cfg, num_sampling_steps)

    def table(self, module: Any, steps: int) -> Table:
        return _sphere_table(steps, self.last)

    def asked(self, module: Any, *args: Any) -> Asked | str:
        z, cfg, steps = args
        branches = 2 if cfg > 1.0 else 1
        tokens, rest = divmod(len(z), branches)
        if rest or steps < 1:
            return "other numbers of rows" if rest else "no steps"
        device, channels = z.device, module.ch_target

        def draw() -> tuple[Tensor, Tensor]:
            own = drawn(1 + steps, tokens, channels, device)
            return own[0], torch.cat([own[1:], own.new_zeros(1, tokens, channels)])

        return Asked(
            cond=z,
            table=self.table(module, steps),
            draw=draw,
            result=lambda tokens: tokens.repeat(branches, 1),
            scales=(cfg,) * (branches - 1),
        )

    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        z = example_rows(2 * asked.branches, asked.cond.shape[1], net.cond_embed.weight.device)
        return z, 2.5 if asked.scales else 1.0, 3


class FastBitDanceSample(FastSphereSample):
    """BitDance's, told by the shift of its times."""

    last = 0.05

    @classmethod
    def is_owner(cls, module: Any) -> bool:
        return hasattr(module, "time_shift") and super().is_owner(module)

    def table(self, module: Any, steps: int) -> Table:
        return _bitdance_table(steps, self.last, float(module.time_shift))


def _summed(dt: Tensor) -> Tensor:
    """Times [S] at which steps of dt begin, and the last one's end, summed in float32."""
    t = torch.zeros((), dtype=torch.float32, device="cpu")
    times = [t.clone()]
    for step in dt.float():
        t += step
        times.append(t.clone())
    return torch.stack(times)


def _with_last_step(before: Tensor, dt: Tensor, last: float, **options: Any) -> Table:
    """Euler–Maruyama from the times `before` [S], then Euler from 1 - last."""
    end = torch.tensor([1 - last], dtype=torch.float32, device="cpu")
    times, steps = torch.cat([before, end]), len(before)
    dts = np.append(dt.double().numpy(), last)
    return flow_steps(times.double().numpy(), dts, np.arange(steps + 1) < steps, times, **options)


@functools.lru_cache(maxsize=16)
def _sphere_table(steps: int, last: float) -> Table:
    dt = torch.full((steps,), (1.0 - last) / steps, dtype=torch.float64, device="cpu")
    return _with_last_step(_summed(dt)[:-1], dt, last)


@functools.lru_cache(maxsize=16)
def _bitdance_table(steps: int, last: float, shift: float) -> Table:
    even = torch.linspace(0, 1 - last, steps + 1, dtype=torch.float32, device="cpu")
    times = (1 / shift) / ((1 / shift) + (1 / even - 1))
    dt = times[1:] - times[:-1]
    return _with_last_step(_summed(dt)[:-1], dt, last, prediction="x0", least=0.05)
