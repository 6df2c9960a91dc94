"""What MAR means, in plain PyTorch: all else in the package is checked against this."""

from .diffusion import GaussianDiffusion, create_diffusion, space_timesteps
from .head import DiffLoss, SimpleMLPAdaLN
from .mar import MAR, mar_base, mar_huge, mar_large
from .vae import AutoencoderKL, DiagonalGaussianDistribution

__all__ = [
    "MAR",
    "AutoencoderKL",
    "DiagonalGaussianDistribution",
    "DiffLoss",
    "GaussianDiffusion",
    "SimpleMLPAdaLN",
    "create_diffusion",
    "mar_base",
    "mar_huge",
    "mar_large",
    "space_timesteps",
]
