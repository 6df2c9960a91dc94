"""Takes images as they are finished: into a folder one by one, or into one grid at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from marfast.cli.errors import bad
from marfast.cli.images import LONGEST_SIDE, write_image
from marfast.cli.target import refuse_to_replace
from marfast.files import uninterrupted
from marfast.pixels import Pixels, enlarge, grid_side, make_grid, to_pixels

VIEWABLE = 112  # pixels: small images in a grid are enlarged to at most this


class Output(Protocol):
    """A folder or a file for a run's images."""

    path: Path

    def add(self, images: Tensor) -> None:
        """Take some more images [B, C, H, W], in order."""

    def finish(self) -> None:
        """All images have been added."""

    def describe(self) -> str:
        """What has been written so far."""


@dataclass
class Folder:
    """A file for each image, written when it is added."""

    path: Path
    names: Sequence[str]
    scale: int
    force: bool
    written: int = 0

    def add(self, images: Tensor) -> None:
        for pixels in to_pixels(images):
            file = self.path / self.names[self.written]
            with uninterrupted():
                write_image(enlarge(pixels, self.scale), file, force=self.force)
                self.written += 1

    def finish(self) -> None:
        pass

    def describe(self) -> str:
        return f"{self.written} of {len(self.names)} images are in {self.path}"


@dataclass
class Grid:
    """One file, written when all images are there; without columns, of one image as it is."""

    path: Path
    columns: int | None
    scale: int
    force: bool
    images: list[Pixels] = field(default_factory=list)

    def add(self, images: Tensor) -> None:
        self.images.extend(to_pixels(images))

    def finish(self) -> None:
        sheet = make_grid(self.images, self.columns) if self.columns else self.images[0]
        write_image(enlarge(sheet, self.scale), self.path, force=self.force)

    def describe(self) -> str:
        return "nothing was written"


def make_folder(
    path: Path, names: Sequence[str], side: int, scale: int | None, force: bool, resume: bool
) -> Folder:
    """None of these files may exist, unless forced; the first ones may, where they are resumed."""
    done = 0
    while resume and done < len(names) and (path / names[done]).exists():
        done += 1
    refuse_to_replace((path / name for name in names[done:]), force)
    scale = scale or 1
    _check_side(side, scale)
    return Folder(path, names, scale, force, done)


def make_grid_file(
    path: Path, labels: int, per_label: int, side: int, scale: int | None, force: bool
) -> Grid:
    """A row for each label where there are several with several images, else near-square."""
    images = labels * per_label
    rows_of_labels = labels > 1 and per_label > 1
    columns = per_label if rows_of_labels else math.ceil(math.sqrt(images))
    return _make_grid_of(path, images, columns, (side, side), scale, force)


def make_variants(
    path: Path,
    first: Sequence[Tensor],
    variants: int,
    size: tuple[int, int],
    scale: int | None,
    force: bool,
) -> Grid:
    """Near-square, of what comes first [1, C, H, W] each, and so many variants of that size."""
    images = len(first) + variants
    columns = math.ceil(math.sqrt(images))
    grid = _make_grid_of(path, images, columns, size, scale, force)
    for image in first:
        grid.add(image)
    return grid


def make_single(path: Path, size: tuple[int, int], scale: int | None, force: bool) -> Grid:
    scale = scale or 1
    _check_side(max(size), scale)
    return Grid(path, None, scale, force)


def _make_grid_of(
    path: Path,
    images: int,
    columns: int,
    size: tuple[int, int],
    scale: int | None,
    force: bool,
) -> Grid:
    rows = math.ceil(images / columns)
    longest = max(grid_side(rows, size[0]), grid_side(columns, size[1]))
    if scale is None:
        scale = max(1, min(VIEWABLE // max(size), LONGEST_SIDE // longest))
    _check_side(longest, scale)
    return Grid(path, columns, scale, force)


def _check_side(side: int, scale: int) -> None:
    if side > LONGEST_SIDE:
        raise bad("--out", f"a picture of {side} pixels a side; allowed are up to {LONGEST_SIDE}")
    if side * scale > LONGEST_SIDE:
        raise bad("--scale", f"{scale}; allowed is up to {LONGEST_SIDE // side} for this picture")
