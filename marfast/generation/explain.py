"""Which backend runs each op of a generation, and why not another."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from marfast.checkpoints import Settings
from marfast.generation.loop import Loop
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.generation.schedules import schedules_of
from marfast.model.mar import FastMAR
from marfast.ops import choice, tuning
from marfast.ops.backend import AnyOp, Backend
from marfast.ops.runtime import cpu
from marfast.ops.trials import Trial


@dataclass
class Choice:
    """An op of a generation, called with one kind of arguments."""

    op: str
    shapes: list[str]
    """Of its first argument, as it was met: the smallest first."""
    backend: str
    others: dict[str, str]
    """Why no backend that is preferred to it runs."""
    calls: int
    """In the first and the last iteration."""
    tried: dict[str, Trial]
    """What was measured of calls like the first of these, by backend and variant."""


@torch.no_grad()
def explain(model: FastMAR, batch: int, settings: Settings) -> list[Choice]:
    """The ops of generating `batch` images, in the order of their first calls: the first and the
    last of the K iterations are run at their real shapes, with two sampling steps where nothing is
    measured."""
    found: dict[tuple[Any, ...], Choice] = {}
    sizes: dict[tuple[Any, ...], set[tuple[int, ...]]] = {}

    def watch(op: AnyOp, a: Any, chosen: Backend) -> None:
        verdicts = choice.verdicts(op, a)
        before = [*verdicts][: [*verdicts].index(chosen.name)]
        tried = choice.tried(op, a)
        key = (op.name, chosen.label, *(verdicts[name] for name in before), *tried.items())
        known = "it was measured" if tried else f"{choice.forced()!r} is asked for"
        others = {name: verdicts[name] or known for name in before}
        made = Choice(op.name, [], chosen.label, others, 0, tried)
        found.setdefault(key, made).calls += 1
        sizes.setdefault(key, set()).add(tuple(a[0].shape))

    model = model.renewed()
    randomness = BatchRandomness(Generators.seeded(0, model.device), batch, range(batch))
    labels = torch.full((batch,), -1, device=model.device)
    if not tuning.is_on(model.device):  # an interval may hold neither of two steps
        settings = replace(settings, steps=2, guidance_interval=None)
    schedules = schedules_of(model, settings)
    loop = Loop(model, labels, randomness, settings, schedules)
    with choice.watched(watch):
        for k in sorted({0, settings.num_iter - 1}):
            loop.iteration(k)
    for key, op in found.items():
        op.shapes = ["×".join(map(str, shape)) for shape in sorted(sizes[key])]
    choices = [*found.values()]
    if not any(op.op == "fused_linear" for op in choices):
        weight = model.module.decoder_embed.weight
        reason = cpu.why_not(weight)
        why = {"cpu": reason or f"{choice.forced()!r} is asked for, or a block is no plain one"}
        blocks = len(model.module.encoder_blocks) + len(model.module.decoder_blocks)
        choices.insert(0, Choice("transformer blocks", [], "their own code", why, 2 * blocks, {}))
    return choices
