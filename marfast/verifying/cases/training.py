"""The training loss, every gradient, and what training draws."""

from functools import partial
from typing import Any

import torch
from torch import nn

from marfast.verifying.case import (
    Case,
    Implementation,
    Result,
    fill,
    generator_states,
    numbers,
    seed_all,
)
from marfast.verifying.cases.head import C, D
from marfast.verifying.cases.models import VARIANTS, tiny


def gradients(module: nn.Module) -> Result:
    return {
        f"gradient of {name}": parameter.grad
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def step(
    options: dict[str, Any], batch: int, bf16: bool, eval_mode: bool, implementation: Implementation
) -> Result:
    """Loss and gradients of `forward`; dropout and label drop are on unless `eval_mode`."""
    model = tiny(implementation, **{"label_drop_prob": 0.4} | options).train(not eval_mode)
    side = model.img_size // model.vae_stride
    images = numbers(batch, model.vae_embed_dim, side, side, seed=10, scale=0.6)
    labels = torch.arange(batch) * 7 % 10
    seed_all(9)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(images, labels)
    loss.backward()
    return {"loss": loss.detach()} | gradients(model) | generator_states()


def head_step(
    mask: str, checkpointing: bool, bf16: bool, scale: float, implementation: Implementation
) -> Result:
    """Loss and gradients of `diffloss.forward`, those of its condition too."""
    rows = 40
    diffloss = fill(implementation.diffloss(C, D, 2, 40, "5", checkpointing))
    target = numbers(rows, C, seed=11, scale=scale)
    z = numbers(rows, D, seed=12).requires_grad_()
    some = (torch.arange(rows) % 3 > 0).float()
    chosen = {"none": None, "some": some, "all": torch.ones(rows)}[mask]
    seed_all(10)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = diffloss(target, z, chosen)
    loss.backward()
    found = gradients(diffloss) | {"gradient of z": z.grad}
    return {"loss": loss.detach()} | found | generator_states()


def terms(respacing: str, implementation: Implementation) -> Result:
    """The loss of each token, over the timesteps, with targets in the open end bins of t = 0."""
    process = implementation.create_diffusion(respacing)
    steps = process.num_timesteps
    t = torch.cat([torch.zeros(8, dtype=torch.long), torch.arange(steps)[:: max(1, steps // 60)]])
    net = fill(implementation.net(C, 40, 2 * C, D, 2))
    target = numbers(len(t), C, seed=13, scale=0.7).clamp(-1, 1)
    noise, condition = numbers(len(t), C, seed=14), numbers(len(t), D, seed=15)
    with torch.no_grad():
        losses = process.training_losses(net, target, t, {"c": condition}, noise)
    return {name: losses[name] for name in ("loss", "mse", "vb")}


def random_masks(batch: int, minimum: float, implementation: Implementation) -> Result:
    """How many of 1024 tokens are masked in many draws, and which in the last."""
    model = tiny(implementation, mask_ratio_min=minimum, img_size=32, patch_size=1)
    seed_all(11)
    orders = model.sample_orders(batch)
    x = numbers(batch, model.seq_len, model.token_embed_dim)
    masks = [model.random_masking(x, orders) for _ in range(100)]
    counts = [int(mask.sum()) for mask in masks]
    return {"counts": counts, "last mask": masks[-1].to(torch.uint8)} | generator_states()


def cases() -> list[Case]:
    table: list[tuple[str, dict[str, Any], int]] = [(name, o, 4) for name, o in VARIANTS.items()]
    table += [
        ("gradient checkpointing", {"grad_checkpointing": True}, 4),
        ("one image", {}, 1),
        ("loss once a token", {"diffusion_batch_mul": 1}, 4),
        ("every label dropped", {"label_drop_prob": 1.0}, 4),
        ("no dropout", {"attn_dropout": 0.0, "proj_dropout": 0.0, "label_drop_prob": 0.0}, 4),
        ("least mask ratio 0.1", {"mask_ratio_min": 0.1}, 4),
    ]
    cases = []
    for bf16 in (False, True):
        what = "training loss and gradients" + (", bf16 autocast" if bf16 else "")
        for name, options, batch in table:
            cases.append(Case(what, name, partial(step, options, batch, bf16, False)))
        cases.append(Case(what, "evaluation mode", partial(step, {}, 4, bf16, True)))
        for mask in ("none", "some", "all"):
            name = f"head, mask {mask}"
            cases.append(Case(what, name, partial(head_step, mask, False, bf16, 1.0)))
        name = "head, gradient checkpointing, targets beyond [-1, 1]"
        cases.append(Case(what, name, partial(head_step, "some", True, bf16, 2.0)))
    for respacing in ("", "250", "ddim5"):
        cases.append(Case("loss of each token", f"steps {respacing!r}", partial(terms, respacing)))
    for batch, minimum in ((1, 0.7), (3, 0.2)):
        name = f"batch {batch}, from {minimum}"
        cases.append(Case("training masks", name, partial(random_masks, batch, minimum)))
    return cases
