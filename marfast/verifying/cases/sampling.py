"""Whole images: `sample_tokens`."""

from functools import partial
from typing import Any

import torch

from marfast.verifying.case import Case, Implementation, Result, generator_states, seed_all
from marfast.verifying.cases.models import UNEQUAL, VARIANTS, tiny

GUIDED = {"cfg": 2.5, "num_iter": 4}
CONSTANT = GUIDED | {"cfg_schedule": "constant"}
CLIP = {"clip_denoised": True}


def sample(
    options: dict[str, Any], call: dict[str, Any], bf16: bool, implementation: Implementation
) -> Result:
    """`call` is `sample_tokens`'s arguments; labels are given unless it says None."""
    model = tiny(implementation, **options)
    batch = call.get("bsz", 3)
    arguments = {"bsz": batch, "labels": torch.arange(batch) * 3 % 10} | call
    seed_all(8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = model.sample_tokens(**arguments)
    return {"images": images} | generator_states()


def cases() -> list[Case]:
    table: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    for cfg, kind in ((1.0, "linear"), (2.5, "linear"), (2.5, "constant")):
        for num_iter in (1, 2, 7, 15, 16):
            call = {"cfg": cfg, "cfg_schedule": kind, "num_iter": num_iter}
            table.append((f"cfg {cfg} {kind}, {num_iter} iterations", {}, call))
    for name, options in VARIANTS.items():
        table.append((name, options, GUIDED))
    table += [
        ("no labels", {}, {"labels": None, "num_iter": 4}),
        ("no labels, guidance", {}, GUIDED | {"labels": None}),
        ("guidance as a tensor", {}, GUIDED | {"cfg": torch.tensor([2.5])}),
        ("guidance as a tensor, constant", {}, CONSTANT | {"cfg": torch.tensor([2.5])}),
        ("guidance below 1", {}, GUIDED | {"cfg": 0.5}),
        ("temperature 0.9", {}, GUIDED | {"temperature": 0.9}),
        ("temperature 0", {}, {"num_iter": 4, "temperature": 0.0}),
        ("clipped", CLIP, {"num_iter": 4}),
        ("clipped, guidance, temperature", CLIP, GUIDED | {"temperature": 0.95}),
        ("clipped, 100 steps", CLIP | {"num_sampling_steps": "100"}, GUIDED),
        ("one image", {}, GUIDED | {"bsz": 1}),
        ("one image, no guidance", {}, {"bsz": 1, "num_iter": 4}),
        ("eight images, clipped", CLIP, GUIDED | {"bsz": 8}),
        ("steps ddim5", {"num_sampling_steps": "ddim5"}, GUIDED),
        ("steps 4,3,1", {"num_sampling_steps": "4,3,1"}, GUIDED),
        ("steps 10,15,20", {"num_sampling_steps": "10,15,20"}, {"num_iter": 3}),
        ("unequal widths, no guidance", UNEQUAL, {"num_iter": 4}),
        ("gradient checkpointing", {"grad_checkpointing": True}, {"num_iter": 2}),
        ("64 tokens, clipped", CLIP | {"img_size": 32}, {"num_iter": 12, "cfg": 2.9, "bsz": 2}),
    ]
    cases = [Case("sample_tokens", name, partial(sample, o, c, False)) for name, o, c in table]
    for name, options, call in table[3::4]:
        run = partial(sample, options, call, True)
        cases.append(Case("sample_tokens, bf16 autocast", name, run))
    return cases
