"""The pictures of docs/editing.md: edits of Fashion-MNIST's test images by the embedded model.

    python -m benchmarks.studies.editing_pictures [--out FOLDER]

Each is a row for an image: the original, what is made anew in white, and the edits, one for each
label or seed. The images were chosen for their outlines, the edits were not: each has the model's
own settings, and seeds are 0, 1, 2, ….
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import marfast
from benchmarks.studies import IMAGES
from marfast.generation import Pipeline
from marfast.generation.outpaint import SIDES, extended
from marfast.image_files import BETWEEN, enlarge, make_grid, write_image
from marfast.pixels import Pixels, to_pixels
from marfast.training.fashion_mnist import CLASS_NAMES, read_fashion_mnist, to_model_range

SCALE = 4
Labels = Sequence[str | None]


def index_of(label: str | None) -> int | None:
    return None if label is None else CLASS_NAMES.index(label)


def box(x: int, y: int, w: int, h: int) -> Tensor:
    mask = torch.zeros(28, 28)
    mask[y : y + h, x : x + w] = 1
    return mask


def row(model: Pipeline, image: Tensor, mask: Tensor, labels: Labels, **options: Any) -> Tensor:
    """The original [1, 1, 28, 28], its mask [28, 28] and an edit for each label, seeds from 0 on ->
    [2 + B, 1, 28, 28]."""
    count = len(labels)
    made = model.edit(
        image.expand(count, -1, -1, -1),
        mask.expand(count, -1, -1),
        [index_of(label) for label in labels],
        seed=[*range(count)],
        **options,
    )
    return torch.cat([image, 2 * mask.view(1, 1, 28, 28) - 1, made])


def wide_row(model: Pipeline, image: Tensor, label: str, count: int, **options: Any) -> Tensor:
    """The original on its canvas, what is missing, and what is made, seeds from 0 on."""
    made = model.outpaint(
        image.expand(count, -1, -1, -1), index_of(label), seed=[*range(count)], **options
    )
    canvas, missing = extended(image, {side: options.get(side, 0) for side in SIDES})
    original = canvas.masked_fill(missing, 1)
    return torch.cat([original, 2 * missing.float().view_as(original) - 1, made])


def sheet(rows: Sequence[Tensor]) -> Pixels:
    """Rows of images [B, 1, H, W], one under the other."""
    columns = max(map(len, rows))
    tiles: list[Pixels] = []
    for images in rows:
        pixels = list(to_pixels(images))
        tiles += pixels + [np.full_like(pixels[0], BETWEEN)] * (columns - len(pixels))
    return enlarge(make_grid(tiles, columns), SCALE)


def pictures(model: Pipeline, images: Tensor) -> dict[str, Pixels]:
    """File names and contents."""

    def of(number: int) -> Tensor:
        return images[number : number + 1]

    tops = ("shirt", "t-shirt", "dress", "coat", "trouser")
    arms = box(0, 12, 8, 16) + box(20, 12, 8, 16)
    return {
        "editing-shirt.png": sheet([row(model, of(26), box(0, 14, 28, 14), tops)]),
        "editing-sleeve.png": sheet([
            row(model, of(pullover), arms, ["t-shirt"] * 5) for pullover in (55, 92)
        ]),
        "editing-boot.png": sheet([
            row(model, of(39), box(0, 0, 28, 16), ["sneaker"] * 3 + ["sandal"] * 2),
            row(model, of(39), box(0, 0, 28, 16), ["ankle boot"] * 5),
        ]),
        "editing-bag.png": sheet([
            wide_row(model, of(62), "bag", 5, left=4, right=-4),
            wide_row(model, of(62), "bag", 5, left=8, right=-8),
        ]),
        "editing-wide.png": sheet([wide_row(model, of(62), "bag", 2, left=14, right=14)]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES)
    out: Path = parser.parse_args().out
    images = to_model_range(read_fashion_mnist("test").images)
    for name, pixels in pictures(marfast.load("fashion-mnist"), images).items():
        write_image(pixels, out / name, force=True)


if __name__ == "__main__":
    main()
