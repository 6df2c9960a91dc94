"""What MAR means, in plain PyTorch: all else in the package is checked against this."""

from marfast.reference.diffusion import GaussianDiffusion, create_diffusion
from marfast.reference.head import DiffLoss, SimpleMLPAdaLN
from marfast.reference.head_of_spec import Head
from marfast.reference.head_spec import HeadSpec
from marfast.reference.mar import MAR, mar_base, mar_huge, mar_large
from marfast.reference.respacing import space_timesteps
from marfast.reference.vae import AutoencoderKL, DiagonalGaussianDistribution

__all__ = [
    "MAR",
    "AutoencoderKL",
    "DiagonalGaussianDistribution",
    "DiffLoss",
    "GaussianDiffusion",
    "Head",
    "HeadSpec",
    "SimpleMLPAdaLN",
    "create_diffusion",
    "mar_base",
    "mar_huge",
    "mar_large",
    "space_timesteps",
]
