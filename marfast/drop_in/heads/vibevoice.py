"""VibeVoice (arXiv 2508.19205): RMSNorm, SwiGLU and no biases, under DPM-Solver++ by a scheduler of
diffusers."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marfast.drop_in.heads.loop import Asked, FastLoop, example_rows
from marfast.drop_in.methods import FastForward, Own
from marfast.model.head_kind import HeadKind, Named
from marfast.model.own import own_class
from marfast.reference.head_spec import HeadSpec
from marfast.reference.samplers import Levels, Prediction, Table, dpm_solver

_BLOCK = re.compile(r"res_blocks\.(\d+)\.(in_ln|mlp\.0|mlp\.2|adaLN_modulation\.1)\.(\w+)")
_IN_BLOCK = {
    "in_ln": ("norm",),
    "mlp.0": ("ffn.gate_proj", "ffn.up_proj"),
    "mlp.2": ("ffn.down_proj",),
    "adaLN_modulation.1": ("adaLN_modulation.1",),
}
_BEFORE = {
    "time_embed.": "t_embedder.",
    "cond_embed.": "cond_proj.",
    "input_proj.": "noisy_images_proj.",
}
_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "x0",
}


def _spec(net: Any, found: Named) -> HeadSpec:
    return HeadSpec(
        norm="rms",
        eps=float(net.final_layer.norm_final.eps),
        activation="swiglu",
        bias=False,
        variance=False,
    )


def _theirs(name: str, spec: HeadSpec) -> Sequence[str]:
    if (ours := _BLOCK.fullmatch(name)) is not None:
        block, part, last = ours.groups()
        return [f"layers.{block}.{own}.{last}" for own in _IN_BLOCK[part]]
    for ours_first, first in _BEFORE.items():
        if name.startswith(ours_first):
            return (first + name.removeprefix(ours_first),)
    return (name,)


def _forward(net: Any, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """It casts sinusoids to the timesteps' dtype."""
    output: Tensor = net.forward(x, t.to(x.dtype), cond)
    return output


VIBES = HeadKind(
    "VibeVoice's",
    ("noisy_images_proj", "cond_proj", "t_embedder", "layers", "final_layer"),
    blocks="layers",
    forward=_forward,
    spec=_spec,
    theirs=_theirs,
)


class FastVibeVoiceForward(FastForward):
    """`forward(noisy_images [R, C], timesteps [R], condition [R, D]) -> [R, C]` of a
    VibeVoiceDiffusionHead."""

    kind = VIBES

    def __call__(
        self, module: Any, own: Own, noisy_images: Tensor, timesteps: Tensor, condition: Tensor
    ) -> Tensor:
        given = noisy_images, timesteps, condition
        t = timesteps.float() if timesteps.is_floating_point() else timesteps
        return self.denoise(module, lambda: own(*given), noisy_images, t, condition)


class FastVibeVoiceSample(FastLoop):
    """`sample_speech_tokens(condition [N, D], neg_condition [N, D], cfg_scale) -> [N, C]`."""

    name = "sample_speech_tokens"
    kind = VIBES

    def __call__(
        self,
        module: Any,
        own: Own,
        condition: Tensor,
        neg_condition: Tensor,
        cfg_scale: float = 3.0,
    ) -> Tensor:
        return self.run(module, own, condition, neg_condition, cfg_scale)

    @classmethod
    def net(cls, module: Any) -> Any:
        return getattr(getattr(module, "model", None), "prediction_head", None)

    @classmethod
    def view(cls, module: Any) -> Any:
        """The model with nothing in it but the head: its scheduler changes from step to step."""
        whole, inner = _without_modules(module), _without_modules(module.model)
        inner.__dict__.pop("noise_scheduler")
        inner._modules["prediction_head"] = cls.net(module)
        whole._modules["model"] = inner
        return whole

    @classmethod
    def trial(cls, module: Any) -> Any:
        trial = super().trial(module)
        trial.model.noise_scheduler = copy.deepcopy(module.model.noise_scheduler)
        return trial

    @classmethod
    def lacks(cls, module: Any) -> str:
        config = getattr(getattr(module.model, "noise_scheduler", None), "config", None)
        if getattr(config, "prediction_type", None) not in _PREDICTIONS:
            return "its noise_scheduler is of another kind"
        return super().lacks(module)

    def asked(self, module: Any, *args: Any) -> Asked | str:
        condition, neg_condition, scale = args
        if condition.shape != neg_condition.shape or condition.dtype != neg_condition.dtype:
            return "two kinds of conditions"
        scheduler, steps = module.model.noise_scheduler, module.ddpm_inference_steps
        stochastic = scheduler.config.algorithm_type == "sde-dpmsolver++"
        scheduler.set_timesteps(steps)
        tokens, channels = len(condition), module.config.acoustic_vae_dim
        device = self.net(module).cond_proj.weight.device
        cond = torch.cat([condition, neg_condition]).to(device)
        table = _table(scheduler, stochastic)

        def draw() -> tuple[Tensor, Tensor]:
            noise = torch.randn(2 * tokens, channels).to(cond)[:tokens].float()
            step_noise = noise.new_zeros(steps, tokens, channels)
            if stochastic:
                shape = 2 * tokens, channels
                for of_step in step_noise:
                    own = torch.randn(shape, dtype=torch.float32, device=device)
                    of_step.copy_(own[:tokens])
            return noise, step_noise

        return Asked(
            cond=cond,
            table=table._replace(timesteps=table.timesteps.to(cond.dtype).float()),
            draw=draw,
            result=lambda tokens: tokens.to(cond.dtype),
            scales=(scale,),
            mode=(steps, *sorted(map(str, scheduler.config.items()))),
        )

    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        cond = example_rows(4, asked.cond.shape[1], net.cond_proj.weight.device)
        return cond[:2], cond[2:], 1.7


def _without_modules(module: nn.Module) -> Any:
    kind: Any = own_class(module)
    bare = kind.__new__(kind)
    bare.__dict__ = module.__dict__ | {"_modules": {}, "_parameters": {}, "_buffers": {}}
    return bare


def _table(scheduler: Any, stochastic: bool) -> Table:
    """Of its steps as they are set; its levels are σ / α."""
    ratio = scheduler.sigmas.double().numpy()
    alpha = 1.0 / np.sqrt(1.0 + ratio**2)
    levels = Levels(alpha, ratio * alpha, scheduler.timesteps.cpu())
    return dpm_solver(levels, stochastic, _PREDICTIONS[scheduler.config.prediction_type])
