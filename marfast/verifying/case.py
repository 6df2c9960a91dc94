"""A case: one computation that two implementations of MAR must agree on, and what it is run with.

Weights and inputs are uniform numbers from numpy's frozen MT19937 stream, scaled by IEEE arithmetic
alone, so they are the same on every machine. Cases draw from the global generators as MAR does.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Result = dict[str, Any]  # tensors, and what JSON can say; "error" alone where a case raised


@dataclass(frozen=True)
class Implementation:
    """The names of MAR that cases use, as the original or the reference has them.

    `mar` and `diffloss` take `clip_denoised` besides MAR's own arguments.
    """

    mar: Callable[..., Any]
    diffloss: Callable[..., Any]
    net: Callable[..., Any]
    time_embedder: Callable[..., Any]
    timestep_embedding: Callable[..., Tensor]
    create_diffusion: Callable[[Any], Any]
    space_timesteps: Callable[[int, Any], set[int]]
    factories: Mapping[str, Callable[..., Any]]
    autoencoder: Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """`run(implementation)` gives the values to compare; `what` is the table's row it counts in."""

    what: str
    name: str
    run: Callable[[Implementation], Result]


def outcome(case: Case, implementation: Implementation) -> Result:
    """The case's result; {"error": …} where it raised."""
    try:
        return case.run(implementation)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def reference() -> Implementation:
    """marfast's own definition."""
    from marfast.reference import diffusion, head, mar, respacing, timesteps, vae

    return Implementation(
        mar=mar.MAR,
        diffloss=head.DiffLoss,
        net=head.SimpleMLPAdaLN,
        time_embedder=head.TimestepEmbedder,
        timestep_embedding=timesteps.timestep_embedding,
        create_diffusion=diffusion.create_diffusion,
        space_timesteps=respacing.space_timesteps,
        factories={"base": mar.mar_base, "large": mar.mar_large, "huge": mar.mar_huge},
        autoencoder=vae.AutoencoderKL,
    )


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Uniform numbers of standard deviation `scale`, from a generator of their own -> float32."""
    uniform = np.random.RandomState(seed).random_sample(shape) * 2 - 1
    return torch.from_numpy(uniform * (math.sqrt(3.0) * scale)).float()


def fill(module: nn.Module, seed: int = 0, gain: float = 0.5) -> Any:
    """Give every parameter numbers of a sensible scale, whatever it was initialised to.

    A gain below 1 keeps whole samples well-conditioned: rounding does not grow from step to step.
    """
    for path, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            scale, centre = 0.2, 0.0
            if isinstance(owner, (nn.LayerNorm, nn.GroupNorm)) and name == "weight":
                centre = 1.0
            elif isinstance(owner, (nn.Linear, nn.Conv2d)) and name == "weight":
                scale = gain / math.sqrt(parameter[0].numel())
            elif parameter.dim() > 1:
                scale = 0.5
            stream = (zlib.crc32(f"{path}.{name}".encode()) + seed) % 2**32
            value = numbers(*parameter.shape, seed=stream, scale=scale) + centre
            parameter.data.copy_(value)
    return module


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)


def generator_states() -> Result:
    """Where torch's CPU generator and numpy's global one stand."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch generator": torch.get_rng_state(),
        "numpy generator": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy position": [int(position), int(has_gauss), float(gauss)],
    }
