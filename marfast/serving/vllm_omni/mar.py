"""MAR as a pipeline of vLLM-Omni: a prompt is a class."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from vllm_omni.diffusion.data import DiffusionOutput
from vllm_omni.diffusion.distributed.utils import get_local_device

from marfast.errors import ArgumentError
from marfast.generation.generated import to_pil
from marfast.generation.load import load

DUMMY: dict[str, Any] = {"num_iter": 1, "steps": 2, "seed": 0}
"""Of the run that vLLM-Omni warms up with, whose prompt is no class."""


class MARPipeline(nn.Module):
    """What `marfast.load` takes; in vLLM-Omni's `additional_config`, "marfast" has more of its
    arguments, such as {"vae": "kl16.ckpt"}.

    A prompt is a class, by number or name, or "none". Of the sampling parameters, seed, number of
    images, `num_inference_steps` (steps of the head) and `guidance_scale` (cfg) are read, and in
    `extra_args` the other settings of `Pipeline.generate`.

    Raises ArgumentError for a model of latents without a tokenizer, and what `load` raises.
    """

    def __init__(self, *, od_config: Any, prefix: str = "") -> None:
        super().__init__()
        more = (od_config.additional_config or {}).get("marfast", {})
        half = None if od_config.dtype == torch.float32 else od_config.dtype
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # it is the served model's dtype, meanwhile
        try:
            given = {"dtype": half, "device": get_local_device(), **more}
            self.pipeline = load(od_config.model, **given)
        finally:
            torch.set_default_dtype(usual)
        if not self.pipeline.makes_images:
            wanted = 'additional_config={"marfast": {"vae": FILE}} names one'
            raise ArgumentError("vae", "the model makes latents and needs a tokenizer", wanted)
        self.model = self.pipeline.model.module

    @torch.no_grad()
    def forward(self, req: Any, **_: Any) -> Any:
        """The images of one request, [B, C, H, W] in [−1, 1], in a `DiffusionOutput`."""
        asked = req.sampling_params
        if req.is_dummy_run():
            images = self.pipeline.generate(0, **DUMMY)
        else:
            label = _label_of(req.prompts[0])
            settings = {"steps": asked.num_inference_steps, **asked.extra_args}
            if asked.guidance_scale_provided:
                settings["cfg"] = asked.guidance_scale
            count = max(1, asked.num_outputs_per_prompt)
            images = self.pipeline.generate([label] * count, seed=asked.seed, **settings)
        return DiffusionOutput(output=images.float().cpu().clone())

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """They were read when the pipeline was made."""


def get_mar_post_process_func(od_config: Any) -> Callable[[Tensor], Any]:
    """What makes Pillow's images of a result."""
    return to_pil


def _label_of(prompt: Any) -> int | str | None:
    text = (prompt if isinstance(prompt, str) else prompt.get("prompt") or "").strip()
    if text == "none":
        return None
    return int(text) if text.isascii() and text.isdigit() else text
