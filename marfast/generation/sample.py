"""Tokens of a whole generation: the loop, or its graphs where `marfast.warmup` captured them."""

from torch import Tensor

from marfast.checkpoints import Settings
from marfast.generation.graphs import Graphs, key_of
from marfast.generation.loop import Loop, Progress
from marfast.generation.randomness import Randomness
from marfast.model.mar import FastMAR, Schedule


def sample_tokens(
    model: FastMAR,
    labels: Tensor,
    randomness: Randomness,
    settings: Settings,
    schedule: Schedule,
    progress: Progress | None = None,
) -> Tensor:
    """Tokens [B, L, C] of images with the given labels [B] (−1: no class).

    schedule is the sampler's, `model.schedule(…)`; `settings.steps` is not read. progress(done, of)
    is called after each of the `settings.num_iter` iterations.
    """
    model = model.renewed()
    graphs: Graphs | None = model.graphs
    if graphs is not None:
        key = key_of(model, len(labels), randomness, settings, schedule)
        if (captured := graphs.find(key)) is not None:
            return captured.run(labels, randomness, settings, progress)
    loop = Loop(model, labels, randomness, settings, schedule)
    for k in range(settings.num_iter):
        loop.iteration(k)
        if progress:
            progress(k + 1, settings.num_iter)
    return loop.tokens
