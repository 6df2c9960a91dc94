"""Outpainting: a picture wider than the grid, by edits of windows that overlap what is known."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.errors import ArgumentError, check_whole
from marfast.generation.arguments import Images, Labels, check_amount, check_range, check_tensor
from marfast.generation.edit import Editor, token_mask
from marfast.generation.generated import Generated
from marfast.generation.loaded import Loaded

SIDES = ("left", "right", "top", "bottom")
MOST_PIXELS = 1 << 26
"""Of a picture that becomes wider."""


def extended(images: Tensor, sides: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] with so many pixels more on each side (less, if negative), which repeat
    the border; and which pixels [H', W'] those are."""
    amounts = [sides[side] for side in SIDES]
    cut = F.pad(images, [min(amount, 0) for amount in amounts])
    more = [max(amount, 0) for amount in amounts]
    missing = torch.zeros(cut.shape[2:], dtype=torch.bool, device="cpu")
    return F.pad(cut, more, mode="replicate"), F.pad(missing, more, value=True)


def positions(whole: int, first: int, last: int, side: int, overlap: int) -> list[int]:
    """Where windows of `side` pixels start along a line of `whole`: the one about the middle of
    what is known, from `first` to before `last`, then those after it, then those before it."""
    start = min(max(0, (first + last - side) // 2), whole - side)
    step = side - overlap
    after = [min(x, whole - side) for x in range(start + step, whole - side + step, step)]
    before = [max(x, 0) for x in range(start - step, -step, -step)]
    return [start, *after, *before]


@torch.no_grad()
def outpaint(
    loaded: Loaded,
    images: Images,
    sides: dict[str, int],
    overlap: int | None,
    grow: int | None,
    labels: Labels | None,
    **arguments: Any,
) -> Tensor:
    """`Pipeline.outpaint`; the other arguments are the `Editor`'s."""
    module, side = loaded.model.module, loaded.side
    given = check_tensor("images", images, [("B", loaded.channels, "H", "W")])
    if loaded.makes_images:
        check_range("images", given)
    sides = check_sides(sides, given.shape[2], given.shape[3], side)
    token = side // module.seq_h
    if overlap is None:
        overlap = -(-module.seq_h // 2) * token
    overlap = check_amount("overlap", overlap, module.seq_h, side)
    if grow is None:
        grow = int(loaded.tokenizer is not None)
    grow = check_amount("grow", grow, module.seq_h, side)
    editor = Editor(loaded, len(given), labels, command="outpaint", **arguments)
    canvas, missing = extended(given.to(editor.device), sides)

    windows = []
    height, width = missing.shape
    rows, columns = ((~missing).any(dim=dim).nonzero() for dim in (1, 0))
    for top, left in product(
        positions(height, int(rows[0]), int(rows[-1]) + 1, side, overlap),
        positions(width, int(columns[0]), int(columns[-1]) + 1, side, overlap),
    ):
        window = (..., slice(top, top + side), slice(left, left + side))
        mask = missing[window].expand(len(given), -1, -1)
        unknown = token_mask(mask.contiguous(), (module.seq_h, module.seq_w), grow)
        editor.expect(unknown)
        windows.append((window, mask.clone(), unknown))
        missing[window] = False
    with editor.running():
        for window, mask, unknown in windows:
            canvas[window] = editor.images(canvas[window], mask, unknown)
    return Generated.of(canvas, editor.batch.making, viewable=loaded.makes_images)


def check_sides(sides: dict[str, int], height: int, width: int, least: int) -> dict[str, int]:
    """Whole numbers that leave some of an image, and make one of `least` pixels a side or more."""
    found = {name: check_whole(name, sides[name], -(2**31), 2**31) for name in SIDES}
    for first, second, size in (("left", "right", width), ("top", "bottom", height)):
        taken = -min(found[first], 0) - min(found[second], 0)
        if taken >= size:
            name = first if found[first] <= found[second] else second
            raise ArgumentError(name, found[name], f"allowed is to take away up to {size - 1}")
    whole = width + found["left"] + found["right"], height + found["top"] + found["bottom"]
    if min(whole) < least:
        raise ArgumentError(
            "images",
            f"{width}×{height} pixels become {whole[0]}×{whole[1]}",
            f"allowed are {least}×{least} and more",
        )
    if whole[0] * whole[1] > MOST_PIXELS:
        given = f"{width}×{height} pixels become {whole[0]}×{whole[1]}"
        raise ArgumentError("images", given, f"allowed are {MOST_PIXELS} pixels and less")
    return found
