"""MAR-B, -L and -H: their true widths at a depth that a CPU can afford, and their parameters."""

from functools import partial
from typing import Any

import torch

from marfast.verifying.case import (
    Case,
    Implementation,
    Result,
    fill,
    generator_states,
    numbers,
    seed_all,
)
from marfast.verifying.cases.training import gradients

# preset: width, heads, the paper's head (depth, width)
SIZES = {"base": (768, 12, 6, 1024), "large": (1024, 16, 8, 1280), "huge": (1280, 16, 12, 1536)}


def _shallow(implementation: Implementation, preset: str) -> Any:
    width, heads, _, head_width = SIZES[preset]
    options: dict[str, Any] = {"norm_layer": partial(torch.nn.LayerNorm, eps=1e-6), "img_size": 96}
    for part in ("encoder", "decoder"):
        options |= {f"{part}_embed_dim": width, f"{part}_depth": 1, f"{part}_num_heads": heads}
    options |= {"diffloss_d": 2, "diffloss_w": head_width, "class_num": 10}
    return fill(implementation.mar(num_sampling_steps="3", diffusion_batch_mul=1, **options))


def sample(preset: str, implementation: Implementation) -> Result:
    model = _shallow(implementation, preset).eval()
    seed_all(12)
    with torch.no_grad():
        images = model.sample_tokens(1, num_iter=3, cfg=2.9, labels=torch.tensor([7]))
    return {"images": images} | generator_states()


def train(preset: str, implementation: Implementation) -> Result:
    model = _shallow(implementation, preset).train()
    seed_all(13)
    loss = model(numbers(1, 16, 6, 6, seed=16), torch.tensor([7]))
    loss.backward()
    return {"loss": loss.detach()} | gradients(model) | generator_states()


def parameters(preset: str, implementation: Implementation) -> Result:
    """Names and shapes of the whole model with the paper's head, in order."""
    *_, depth, width = SIZES[preset]
    with torch.device("meta"):
        model = implementation.factories[preset](diffloss_d=depth, diffloss_w=width)
    state = model.state_dict().items()
    return {"parameters": [[name, list(value.shape), str(value.dtype)] for name, value in state]}


def cases() -> list[Case]:
    table = []
    for preset, (width, *_, head_width) in SIZES.items():
        name = f"mar_{preset}, {width} and {head_width}"
        table.append(Case("true widths, sampling", name, partial(sample, preset)))
        table.append(Case("true widths, training", name, partial(train, preset)))
    for preset in SIZES:
        name = f"mar_{preset} on the meta device"
        table.append(Case("names and shapes of the parameters", name, partial(parameters, preset)))
    return table
