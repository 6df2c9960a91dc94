"""Each model's own code: its class, loaded from a checkout of it, and a call of its own sampling.

Weights are random, sizes the published ones. Nobody's code is here: a checkout is told by its path,
and each model is loaded in a process of its own.
"""

import importlib
import math
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Sample = Callable[[Any, int, torch.dtype], Callable[[], Tensor]]
"""A call of a module's own sampling of so many tokens, with inputs of a dtype."""


class Sizes(NamedTuple):
    """Of a head: width, blocks, channels, width of its conditions."""

    width: int
    depth: int
    channels: int
    condition: int

    def __str__(self) -> str:
        return f"{self.depth} × {self.width}, C {self.channels}, D {self.condition}"

    @property
    def small(self) -> "Sizes":
        """For a quick look at whether it runs."""
        return Sizes(64, 4, self.channels, 64)


Build = Callable[[Path, Sizes], nn.Module]
"""What `accelerate` is given, from a checkout."""


@dataclass(frozen=True)
class Own:
    """A model's own code."""

    repository: str
    build: Build
    sample: Sample
    sizes: Sizes
    """The published ones."""
    sampling: str
    autocast: bool
    """Whether half precision is autocast's to it, and not the module's own."""


OWN: dict[str, Own] = {}
"""By the names that `--code` takes."""


def own(
    name: str, repository: str, sizes: Sizes, sampling: str, sample: Sample, autocast: bool = False
) -> Callable[[Build], Build]:
    def enter(build: Build) -> Build:
        OWN[name] = Own(repository, build, sample, sizes, sampling, autocast)
        return build

    return enter


def package(name: str, folder: Path) -> None:
    """A package whose modules can be imported, without what its `__init__` would import."""
    made = types.ModuleType(name)
    made.__path__ = [str(folder)]
    sys.modules[name] = made


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def fill(module: nn.Module, gain: float = 0.7) -> nn.Module:
    """Random parameters of a sensible scale: heads start with zeros in many places."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_(drawn * (gain / math.sqrt(parameter.shape[1])))
            else:
                centre = float(parameter.mean() > 0.5)  # a norm's
                parameter.copy_(centre + 0.1 * drawn)
    return module.eval().requires_grad_(False)


def _nextstep(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    cond = draw(3 * tokens, module.net.cond_embed.in_features).to(dtype)
    return lambda: module.sample(cond, 7.5, 1.5, num_sampling_steps=28)


NEXTSTEP = (Sizes(1536, 12, 64, 5120), "28 steps, 3 branches", _nextstep)


@own("nextstep", "stepfun-ai/NextStep-1", *NEXTSTEP)
def nextstep(code: Path, sizes: Sizes) -> nn.Module:
    os.environ["ENABLE_TORCH_COMPILE"] = "false"
    sys.path.insert(0, str(code))
    heads = importlib.import_module("nextstep.models.modeling_fm_head")
    made = heads.FlowMatchingHead(sizes.channels, sizes.condition, sizes.width, sizes.depth)
    return fill(made)


@own("nextstep-vllm", "vllm-project/vllm-omni", *NEXTSTEP)
def nextstep_vllm(code: Path, sizes: Sizes) -> nn.Module:
    for name in ("", ".model_executor", ".model_executor.layers"):
        package("vllm_omni" + name, code.joinpath("vllm_omni", *name.split(".")[1:]))
    package("nextstep_1_1", code / "vllm_omni" / "diffusion" / "models" / "nextstep_1_1")
    heads = importlib.import_module("nextstep_1_1.modeling_nextstep_heads")
    made = heads.FlowMatchingHead(sizes.channels, sizes.condition, sizes.width, sizes.depth)
    return fill(made)


def _vibevoice(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    width = module.model.prediction_head.config.hidden_size
    conditions = draw(tokens, width).to(dtype), draw(tokens, width, seed=1).to(dtype)
    return lambda: module.sample_speech_tokens(*conditions, cfg_scale=1.5)


VIBEVOICE = (Sizes(1536, 4, 64, 1536), "20 steps, 2 branches", _vibevoice)


@own("vibevoice", "microsoft/VibeVoice", *VIBEVOICE)
def vibevoice(code: Path, sizes: Sizes) -> nn.Module:
    """The head and its scheduler in the model's own class, without the language model."""
    sys.path.insert(0, str(code))
    folder = "vibevoice.modular"
    inference = importlib.import_module(f"{folder}.modeling_vibevoice_streaming_inference")
    head = importlib.import_module(f"{folder}.modular_vibevoice_diffusion_head")
    configuration = importlib.import_module(f"{folder}.configuration_vibevoice")
    scheduler = importlib.import_module("vibevoice.schedule.dpm_solver")
    config = configuration.VibeVoiceDiffusionHeadConfig(
        hidden_size=sizes.width,
        head_layers=sizes.depth,
        head_ffn_ratio=3.0,
        rms_norm_eps=1e-5,
        latent_size=sizes.channels,
        speech_vae_dim=sizes.channels,
        prediction_type="v_prediction",
        ddpm_num_steps=1000,
        ddpm_num_inference_steps=20,
        ddpm_beta_schedule="cosine",
    )
    kind = inference.VibeVoiceStreamingForConditionalGenerationInference
    module: Any = kind.__new__(kind)
    nn.Module.__init__(module)
    module.config = SimpleNamespace(acoustic_vae_dim=sizes.channels)
    module.ddpm_inference_steps = config.ddpm_num_inference_steps
    module.model = nn.Module()
    module.model.prediction_head = head.VibeVoiceDiffusionHead(config)
    module.model.noise_scheduler = scheduler.DPMSolverMultistepScheduler(
        num_train_timesteps=config.ddpm_num_steps,
        beta_schedule=config.ddpm_beta_schedule,
        prediction_type=config.prediction_type,
    )
    return fill(module)


def _pocket_tts(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Its `lsd_decode` of one step, as `FlowLMModel.forward` calls it."""
    flow_lm = importlib.import_module("pocket_tts.models.flow_lm")
    own = module.cond_embed.weight.dtype  # float64, of its inputs in dtype
    cond = draw(tokens, module.cond_embed.in_features).to(dtype).to(own)

    def sample() -> Tensor:
        noise = torch.empty(tokens, module.in_channels, dtype=dtype)
        nn.init.normal_(noise, mean=0.0, std=0.3**0.5)
        noise = noise.to(own)
        with torch.no_grad():
            decoded: Tensor = flow_lm.lsd_decode(lambda *args: module(cond, *args), noise, 1)
        return decoded

    return sample


POCKET_TTS = (Sizes(512, 6, 32, 1024), "1 step (LSD)", _pocket_tts)


@own("pocket-tts", "kyutai-labs/pocket-tts", *POCKET_TTS)
def pocket_tts(code: Path, sizes: Sizes) -> nn.Module:
    for name in ("", ".modules", ".models"):
        package("pocket_tts" + name, code.joinpath("pocket_tts", *name.split(".")[1:]))
    mlp = importlib.import_module("pocket_tts.modules.mlp")
    width, depth, channels, condition = sizes
    return fill(mlp.SimpleMLPAdaLN(channels, width, channels, condition, depth, num_time_conds=2))


def _autoregressive(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    cond = draw(2 * tokens, module.net.cond_embed.in_features).to(dtype)

    def sample() -> Tensor:
        with torch.no_grad():
            sampled: Tensor = module.sample(cond, 4.0, 100)
        return sampled

    return sample


def _diff_head(path: Path, sizes: Sizes) -> nn.Module:
    package("own", path)
    head = importlib.import_module("own.diff_head")
    width, depth, channels, condition = sizes
    return fill(head.DiffHead(channels, condition, width, depth, 2))


AUTOREGRESSIVE = ("100 steps and 1, 2 branches", _autoregressive, True)


@own("sphere-ar", "guolinke/SphereAR", Sizes(1024, 8, 16, 1024), *AUTOREGRESSIVE)
def sphere_ar(code: Path, sizes: Sizes) -> nn.Module:
    return _diff_head(code / "SphereAR", sizes)


@own("bitdance", "shallowdream204/BitDance", Sizes(1024, 8, 32, 1024), *AUTOREGRESSIVE)
def bitdance(code: Path, sizes: Sizes) -> nn.Module:
    return _diff_head(code / "imagenet_gen" / "src", sizes)


def _ming(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Its `sample` takes the branches of one token at a time."""
    conds = draw(tokens, 3, module.net.cond_embed.in_features).to(dtype)

    def sample() -> Tensor:
        return torch.cat([module.sample(cond, 1.0, 3.0, 1.1)[:1] for cond in conds])

    return sample


MING = (Sizes(3072, 12, 32, 3072), "16 steps, 3 branches", _ming, True)


@own("ming-univision", "inclusionAI/Ming-UniVision", *MING)
def ming(code: Path, sizes: Sizes) -> nn.Module:
    package("mingunivision", code / "mingunivision")
    loss = importlib.import_module("mingunivision.diff_loss_rf_swiglu")
    width, depth, channels, condition = sizes
    return fill(loss.RectifiedFlowLoss(channels, condition, depth, width, "16", mlp_mult=4))


def _emigm(module: Any, tokens: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    own = module.net.cond_embed.weight
    cond = draw(2 * tokens, own.shape[1]).to(own.dtype)

    def sample() -> Tensor:
        with torch.no_grad():
            sampled: Tensor = module.sample(cond, 1.0, 4.0)
        return sampled

    return sample


EMIGM = (Sizes(1280, 8, 16, 1024), "14 steps, 2 branches", _emigm, True)


@own("emigm", "ML-GSAI/eMIGM", *EMIGM)
def emigm(code: Path, sizes: Sizes) -> nn.Module:
    """Its loop asks for CUDA by name."""
    setattr(Tensor, "cuda", lambda self: self)  # noqa: B010
    sys.path.insert(0, str(code))
    diffloss = importlib.import_module("models.diffloss")
    width, depth, channels, condition = sizes
    return fill(diffloss.DiffLoss(channels, condition, depth, width, "14", "dpm-solver"))
