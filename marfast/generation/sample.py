"""Tokens of a whole generation: the loop, or its graphs from the second one of a kind on."""

from collections.abc import Callable, Sequence

from torch import Tensor

from marfast.checkpoints import Settings
from marfast.generation.device import Cuda
from marfast.generation.graphs import Graphs, key_of
from marfast.generation.loop import Loop
from marfast.generation.progress import Progress
from marfast.generation.randomness import Randomness
from marfast.generation.start import Start
from marfast.model.mar import FastMAR
from marfast.model.schedule import Schedule


def sample_tokens(
    model: FastMAR,
    labels: Tensor,
    randomness: Randomness,
    settings: Settings,
    schedules: Sequence[Schedule],
    progress: Progress | None = None,
    start: Start | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Tokens [B, L, C] of images with the given labels [B] (−1: no class); `start` says which are
    known (None: none).

    schedules: one for each of the `settings.num_iter` iterations, as `schedules_of` has them; the
        settings' own sampler and steps are not read. progress(done, of) is called after each, and
        watch(done, tokens).
    """
    model = model.renewed()

    def told(tokens: Tensor) -> Progress:
        def report(done: int, of: int) -> None:
            if progress:
                progress(done, of)
            if watch:
                watch(done, tokens)

        return report

    if (graphs := graphs_of(model)) is not None and not model.is_hooked:
        key = key_of(model, len(labels), randomness, settings, schedules, start)

        def own_loop() -> Loop:
            return Loop(model, labels, randomness.twin(), settings, schedules, start)

        captured = graphs.at_second_sight(key, own_loop)
        if captured:
            tokens = captured.run(labels, randomness, settings, told(captured.loop.tokens), start)
            if tokens is not None:
                return tokens
    loop = Loop(model, labels, randomness, settings, schedules, start)
    report = told(loop.tokens)
    for k in range(settings.num_iter):
        loop.iteration(k)
        report(k + 1, settings.num_iter)
    return loop.tokens


def graphs_of(model: FastMAR) -> Graphs | None:
    """A model's, of the device that it is on now, if that makes graphs."""
    graphs: Graphs | None = model.graphs
    if graphs is None or graphs.device.device != model.device:
        graphs = Graphs(Cuda(model.device)) if model.device.type == "cuda" else None
        model.graphs = graphs
    return graphs
