"""Sequences of given lengths, each made as by a model of that length; equal ones together."""

from typing import Any

import torch
from torch import Tensor

from marfast.errors import ArgumentError, check_whole
from marfast.generation.arguments import Labels, Seed, check_labels, check_seeds, listed_values
from marfast.generation.loaded import Loaded
from marfast.generation.parts import parts_of, sample_parts
from marfast.generation.progress import Progress
from marfast.generation.randomness import Generators
from marfast.model.mar import FastMAR, Kept
from marfast.model.restricted import is_sequence, restricted


def generate_sequences(
    loaded: Loaded,
    labels: Labels,
    lengths: Any,
    *,
    seed: Seed = None,
    num_iter: int | None = None,
    part: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> list[Tensor]:
    """Generate sequences, each [n, C], by a loaded model whose tokens are vectors in a row.

    labels, seed, part, settings: as for `Pipeline.generate`; one seed goes from the sequences of
        one length to those of the next.
    lengths: tokens of each sequence, or one number for all.
    num_iter: iterations, at most one a token; None takes the model's in proportion to a sequence's
        length.
    progress: called with (done, of) iterations.

    Raises ArgumentError, a ValueError, before any work.
    """
    module, device = loaded.model.module, loaded.model.device
    if not is_sequence(module):
        raise ArgumentError("model", "it makes images", "use generate")
    kinds = check_labels(labels, module.num_classes)
    count, most = len(kinds), module.seq_len
    listed = listed_values(lengths)
    given = listed if isinstance(listed, list) else [listed] * count
    if len(given) != count:
        said = f"{len(given)} lengths for {count} labels"
        raise ArgumentError("lengths", said, "one for each, or one for all, is needed")
    allowed = f"allowed are 1 to {most}"
    sizes = [check_whole("lengths", length, 1, most, allowed) for length in given]
    seeds = check_seeds(seed, count)
    chosen = loaded.settings.replace(most, num_iter=num_iter, **settings)
    part = None if part is None else check_whole("part", part, 1)
    source = None if isinstance(seeds, list) else Generators.of(seeds, device)

    def iterations(length: int) -> int:
        share = -(-chosen.num_iter * length // most)
        return min(length, share if num_iter is None else num_iter)

    made: list[Tensor] = [torch.empty(0)] * count
    done, total = 0, sum(map(iterations, {*sizes}))
    for length in dict.fromkeys(sizes):
        rows = [i for i, size in enumerate(sizes) if size == length]
        short = _shortened(loaded, length)
        own = chosen.replace(length, num_iter=iterations(length))
        at_once = short.largest_part if part is None else part
        parts = parts_of(len(rows), at_once)
        streams: Any = [seeds[i] for i in rows] if isinstance(seeds, list) else source
        tokens = torch.cat([*sample_parts(short, kinds[rows].to(device), streams, parts, own)])
        for row, sequence in zip(rows, tokens, strict=True):
            made[row] = sequence
        done += own.num_iter
        if progress:
            progress(done, total)
    return made


def _shortened(loaded: Loaded, length: int) -> Loaded:
    """Of the model restricted to a length: what is packed is shared, what is captured is not."""
    own = loaded.model
    kept = Kept()
    kept.head, kept.encoder, kept.decoder = own.kept.head, own.kept.encoder, own.kept.decoder
    kept.schedules = own.kept.schedules
    with torch.no_grad():
        model = FastMAR(restricted(own.module, length), own.dtype, kept)
    return Loaded(model, loaded.settings, loaded.classes)
