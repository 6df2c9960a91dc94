"""The encoder and the decoder."""

from functools import partial
from typing import Any

import torch

from marfast.verifying.case import Case, Implementation, Result, generator_states, numbers, seed_all
from marfast.verifying.cases.models import VARIANTS, tiny


def _mask(batch: int, seq_len: int, masked: int) -> torch.Tensor:
    """`masked` tokens of each image, other ones in each."""
    ranks = numbers(batch, seq_len, seed=7).argsort(dim=1).argsort(dim=1)
    return (ranks < masked).float()


def encoder(
    options: dict[str, Any],
    masked: int,
    training: bool,
    bf16: bool,
    implementation: Implementation,
    batch: int = 3,
) -> Result:
    model = tiny(implementation, label_drop_prob=0.5, **options).train(training)
    x = numbers(batch, model.seq_len, model.token_embed_dim, seed=5)
    labels = numbers(batch, model.class_emb.embedding_dim, seed=6)
    seed_all(5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model.forward_mae_encoder(x, _mask(batch, model.seq_len, masked), labels)
    return {"encoded": out} | generator_states()


def decoder(
    options: dict[str, Any], masked: int, training: bool, bf16: bool, implementation: Implementation
) -> Result:
    model = tiny(implementation, **options).train(training)
    known = model.seq_len - masked + model.buffer_size
    x = numbers(3, known, model.decoder_embed.in_features, seed=8)
    seed_all(6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model.forward_mae_decoder(x, _mask(3, model.seq_len, masked))
    return {"z": out} | generator_states()


def patches(options: dict[str, Any], implementation: Implementation) -> Result:
    model = tiny(implementation, **options)
    side = model.img_size // model.vae_stride
    images = numbers(2, model.vae_embed_dim, side, side, seed=9)
    tokens = model.patchify(images)
    return {"tokens": tokens, "images": model.unpatchify(tokens)}


def cases() -> list[Case]:
    table: list[Case] = []
    for what, run in (("encoder", encoder), ("decoder", decoder)):
        for name, options in VARIANTS.items():
            table.append(Case(what, name, partial(run, options, 10, False, False)))
        for masked in (0, 1, 16):
            name = f"{masked} of 16 masked"
            table.append(Case(what, name, partial(run, {}, masked, False, False)))
        for training, bf16 in ((True, False), (False, True), (True, True)):
            mode = ("training" if training else "sampling") + (", bf16 autocast" if bf16 else "")
            table.append(Case(what, mode, partial(run, {}, 10, training, bf16)))
    run = partial(encoder, {"encoder_depth": 1}, 16, True, False, batch=256)
    table.append(Case("encoder", "label drop of 256 images", run))
    for name, options in VARIANTS.items():
        table.append(Case("patchify and unpatchify", name, partial(patches, options)))
    return table
