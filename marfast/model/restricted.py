"""A model of sequences, restricted to shorter ones.

A sequence of n tokens is what a model of L ≥ n positions sees of it when the positions behind its
end are not there: neither known, nor attended to, nor predicted. So it is a model of n positions
whose tables are the first rows of the whole one's. Sequences of one length run together.
"""

import copy
from typing import Any

from marfast.errors import ArgumentError


def is_sequence(module: Any) -> bool:
    """Whether tokens are a row, and not an image's."""
    return bool(module.seq_h == 1 and module.seq_w > 1)


def restricted(module: Any, length: int) -> Any:
    """The MAR module of sequences that are `length` tokens long: the same parts and parameters, to
    which gradients flow."""
    if not 1 <= length <= module.seq_len:
        raise ArgumentError("lengths", length, f"allowed are 1 to {module.seq_len}")
    if length == module.seq_len:
        return module
    short = copy.copy(module)
    short._parameters = dict(module._parameters)
    for name, behind in (
        ("encoder_pos_embed_learned", module.buffer_size),
        ("decoder_pos_embed_learned", module.buffer_size),
        ("diffusion_pos_embed_learned", 0),
    ):
        table = short._parameters.pop(name)
        setattr(short, name, table[:, : behind + length])
    short.img_size = (module.img_size[0], length)
    short.seq_len = short.seq_w = length
    return short
