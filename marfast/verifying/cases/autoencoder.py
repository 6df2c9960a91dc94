"""The tokenizer: KL-16 and smaller autoencoders of its kind."""

import hashlib
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

# latents' channels, and widths of the levels in multiples of 128
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "KL-16": (16, (1, 1, 2, 2, 4)),
    "2 levels": (4, (1, 2)),
    "1 level": (3, (1,)),
}


def _filled(size: str, implementation: Implementation, **options: Any) -> Any:
    return fill(implementation.autoencoder(*SIZES[size], **options), gain=1.0).eval()


def initial_weights(size: str, implementation: Implementation) -> Result:
    seed_all(20)
    digest = hashlib.sha256()
    for name, value in implementation.autoencoder(*SIZES[size]).state_dict().items():
        digest.update(f"{name} {list(value.shape)}".encode() + value.numpy().tobytes())
    return {"sha256": digest.hexdigest()} | generator_states()


def encode(
    size: str,
    shape: tuple[int, int, int],
    bf16: bool,
    variational: bool,
    implementation: Implementation,
) -> Result:
    model = _filled(size, implementation, use_variational=variational)
    batch, height, width = shape
    images = numbers(batch, 3, height, width, seed=21, scale=0.5)
    seed_all(21)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        posterior = model.encode(images)
        sample = posterior.sample()
    moments = {name: getattr(posterior, name) for name in ("parameters", "logvar", "std", "var")}
    return moments | {"mode": posterior.mode(), "sample": sample} | generator_states()


def decode(
    size: str, shape: tuple[int, int, int], bf16: bool, implementation: Implementation
) -> Result:
    model = _filled(size, implementation)
    batch, height, width = shape
    latents = numbers(batch, SIZES[size][0], height, width, seed=22, scale=4.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return {"images": model.decode(latents)}


def cases() -> list[Case]:
    table = [
        Case("autoencoder, initial weights", size, partial(initial_weights, size)) for size in SIZES
    ]
    # a stride apart: what is encoded is 2 ** (levels − 1) times larger than what is decoded
    latents = {
        "KL-16": ((2, 2, 2), (1, 4, 4)),
        "2 levels": ((3, 8, 5), (1, 1, 1)),
        "1 level": ((1, 7, 9),),
    }
    for size, shapes in latents.items():
        stride = 2 ** (len(SIZES[size][1]) - 1)
        for batch, height, width in shapes:
            for bf16 in (False, True):
                named = f"{size}, {batch} of {height} x {width}" + (", bf16" if bf16 else "")
                pixels = (batch, stride * height, stride * width)
                run = partial(encode, size, pixels, bf16, True)
                table.append(Case("autoencoder, encode", named, run))
                run = partial(decode, size, (batch, height, width), bf16)
                table.append(Case("autoencoder, decode", named, run))
    run = partial(encode, "2 levels", (1, 6, 6), False, False)
    table.append(Case("autoencoder, encode", "not variational", run))
    return table
