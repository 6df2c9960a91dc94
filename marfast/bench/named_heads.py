"""Heads with public weights, by name: what each computes, its true sizes, how it is sampled."""

from collections.abc import Callable
from typing import NamedTuple

from marfast.ops.head import HeadShape
from marfast.reference import HeadSpec
from marfast.reference.diffusion import GaussianDiffusion
from marfast.reference.respacing import sampling_timesteps
from marfast.reference.samplers import (
    Table,
    ddim,
    diffusion_levels,
    dpm_solver,
    euler_maruyama,
    flow_levels,
)


class NamedHead(NamedTuple):
    """A head that somebody has trained."""

    spec: HeadSpec
    shape: HeadShape
    steps: int
    """As its own code samples by default."""
    table: Callable[[int], Table]
    """Its sampler, of so many steps."""


def _times(steps: int) -> list[float]:
    return [i / steps for i in range(steps + 1)]


def _euler(steps: int) -> Table:
    return ddim(flow_levels(_times(steps)), prediction="velocity")


def _spans(steps: int) -> Table:
    return ddim(flow_levels(_times(steps), spans=True), prediction="velocity")


def _euler_maruyama(steps: int) -> Table:
    return euler_maruyama(flow_levels(_times(steps)))


def _ddim(steps: int) -> Table:
    return ddim(diffusion_levels(GaussianDiffusion(sampling_timesteps(steps, "ddim"))))


def _dpm_solver_of_v(steps: int) -> Table:
    levels = diffusion_levels(GaussianDiffusion(sampling_timesteps(steps, "ddim")))
    return dpm_solver(levels, prediction="v")


C_OUT = HeadSpec(variance=False)
SHARED = HeadSpec(
    activation="swiglu", order="scale shift gate", share=4, variance=False, time_scale=1000.0
)
NAMED: dict[str, NamedHead] = {
    "nextstep": NamedHead(
        C_OUT, HeadShape(64, 5120, 1536, 12, 256, hidden=1536), 28, _euler_maruyama
    ),
    "vibevoice": NamedHead(
        HeadSpec(norm="rms", eps=1e-5, activation="swiglu", bias=False, variance=False),
        HeadShape(64, 1536, 1536, 4, 256, hidden=4608),
        20,
        _dpm_solver_of_v,
    ),
    "pocket-tts": NamedHead(
        HeadSpec(times=2, time_norm="std", variance=False),
        HeadShape(32, 1024, 512, 6, 256, hidden=512),
        1,
        _spans,
    ),
    "sphere-ar": NamedHead(
        SHARED, HeadShape(16, 1024, 1024, 8, 256, hidden=1536), 100, _euler_maruyama
    ),
    "ming": NamedHead(
        HeadSpec(activation="swiglu", variance=False, time_scale=1000.0),
        HeadShape(32, 2048, 3072, 12, 256, hidden=8192),
        16,
        _euler,
    ),
    "nova": NamedHead(
        HeadSpec(
            affine=False,
            norm_after=True,
            order="scale shift gate",
            condition="mlp",
            variance=False,
        ),
        HeadShape(16, 1024, 1024, 6, 256, hidden=1024),
        25,
        _euler,
    ),
    "orthus": NamedHead(C_OUT, HeadShape(256, 4096, 1536, 3, 256, hidden=1536), 100, _ddim),
}
