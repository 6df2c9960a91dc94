"""What `marfast edit` is to make: an image's pixels in a mask or a box, or what is beside it."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from marfast.checkpoints import Architecture
from marfast.cli.errors import reported_as
from marfast.cli.pictures import opened, read_mask, read_picture
from marfast.generation.outpaint import SIDES, check_sides, extended


@dataclass(frozen=True)
class Region:
    """`mask` [1, H, W] (bool) of `original` [1, C, H, W], to which `sides` were added, if any."""

    original: Tensor
    mask: Tensor
    sides: dict[str, int]

    @classmethod
    def masked(cls, image: Tensor, path: str, side: int | None) -> "Region":
        """By a picture, scaled to `side`, if to anything."""
        with reported_as("--mask"), opened(path) as picture:
            _check_size(path, picture.size, image.shape[3], side is not None)
            return cls(image, read_mask(picture, path, side), {})

    @classmethod
    def boxed(cls, image: Tensor, text: str) -> "Region":
        """By "x,y,w,h": top left corner and sides, in pixels."""
        height, width = image.shape[2:]
        with reported_as("--box"):
            return cls(image, parse_box(text, width, height), {})

    @classmethod
    def beside(cls, image: Tensor, text: str, side: int) -> "Region":
        """By "left=8,top=-4": pixels to add; the whole then has `side` a side, or more."""
        options = dict.fromkeys(SIDES, "--outpaint") | {"images": "--image"}
        with reported_as("--outpaint", **options):
            sides = parse_sides(text)
            check_sides(sides, image.shape[2], image.shape[3], side)
        canvas, missing = extended(image, sides)
        return cls(torch.where(missing, torch.ones(()), canvas), missing[None], sides)

    def shown(self) -> list[Tensor]:
        """The original, white where there is nothing, and the mask, as images [1, C, H, W]."""
        mask = self.mask[:, None].expand_as(self.original)
        return [self.original, mask.float().mul(2).sub(1)]


def read_image(path: str, what: Architecture, resize: bool, any_size: bool) -> Tensor:
    """An image [1, C, H, W] for such models, of their size unless others will do."""
    side = what.image_side
    with reported_as("--image"), opened(path) as picture:
        if resize or not any_size:
            _check_size(path, picture.size, side, resize)
        return read_picture(picture, path, what.image_channels, side if resize else None)


def _check_size(path: str, size: tuple[int, int], side: int, resize: bool) -> None:
    width, height = size
    if resize and width != height:
        raise ValueError(f"{path}: {width}×{height} pixels; --resize takes squares, cut it first")
    if not resize and size != (side, side):
        fits = f"allowed are {side}×{side}, to which --resize scales squares"
        raise ValueError(f"{path}: {width}×{height} pixels; {fits}")


def parse_box(text: str, width: int, height: int) -> Tensor:
    """The mask [1, H, W] of a box "x,y,w,h", its top left corner and sides in pixels; ValueError
    unless it lies inside."""
    found = re.fullmatch(
        r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", text.replace(" ", ""), re.ASCII
    )
    if found is None:
        raise ValueError(f"{text!r}; allowed are x,y,w,h, as 0,14,28,14")
    x, y, w, h = map(int, found.groups())
    if not w or not h or x + w > width or y + h > height:
        raise ValueError(f"{text}; allowed are boxes inside {width}×{height} pixels")
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, y : y + h, x : x + w] = True
    return mask


def parse_sides(text: str) -> dict[str, int]:
    """Pixels by side, from "left=8,top=-4"; those that aren't named are 0."""
    sides: dict[str, int] = {}
    for item in text.replace(" ", "").split(","):
        found = re.fullmatch(r"(\w+)=(-?\d{1,9})", item, re.ASCII)
        if found is None or found[1] not in SIDES:
            raise ValueError(f"{item!r}; allowed are {', '.join(f'{name}=N' for name in SIDES)}")
        if found[1] in sides:
            raise ValueError(f"{item!r}; {found[1]} is given twice")
        sides[found[1]] = int(found[2])
    return dict.fromkeys(SIDES, 0) | sides
