"""Takes images as they are finished: into a folder one by one, or into one file at the end."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from marfast.cli.errors import bad, reported_as
from marfast.cli.target import refuse_to_replace
from marfast.files import uninterrupted
from marfast.generation.generated import Generated, arrays_of, near_square, said_in_file
from marfast.generation.provenance import Provenance
from marfast.generation.runs import check_settings_file, note_run
from marfast.image_files import (
    LONGEST_SIDE,
    enlarge,
    grid_side,
    make_grid,
    write_arrays,
    write_image,
)
from marfast.pixels import Pixels, to_pixels

VIEWABLE = 112  # pixels: small images in a grid are enlarged to at most this


class Output(Protocol):
    """A folder or a file for a run's images."""

    path: Path
    made: Provenance | None
    """How what was added was made."""

    def add(self, images: Tensor) -> None:
        """Take some more images [B, C, H, W], in order."""

    def finish(self) -> None:
        """All images have been added."""

    def describe(self) -> str:
        """What has been written so far."""


def _made(images: Tensor) -> Provenance | None:
    return images.provenance if isinstance(images, Generated) else None


@dataclass
class Folder:
    """A file for each image, written when it is added; a settings.json says how they were made."""

    path: Path
    names: Sequence[str]
    scale: int
    force: bool
    written: int = 0
    resumable: bool = False
    made: Provenance | None = None

    def add(self, images: Tensor) -> None:
        made = self.made = _made(images)
        if made is not None and len(images):
            whole = dataclasses.replace(
                made, first=made.first - self.written, count=len(self.names), scale=self.scale
            )
            note_run(self.path, dataclasses.replace(whole, backends={}))
        for i, pixels in enumerate(to_pixels(images)):
            file = self.path / self.names[self.written]
            said = said_in_file(made, i, 1, scale=self.scale)
            with uninterrupted():
                write_image(enlarge(pixels, self.scale), file, said, force=self.force)
                self.written += 1

    def finish(self) -> None:
        pass

    def describe(self) -> str:
        done = f"{self.written} of {len(self.names)} images are in {self.path}"
        goes_on = self.resumable and self.written < len(self.names)
        return f"{done}; the same command with --resume makes the others" if goes_on else done

    @property
    def finished(self) -> list[Path]:
        """Files that are there."""
        return [self.path / name for name in self.names[: self.written]]


@dataclass
class OneFile:
    """Written when all images are there."""

    path: Path
    force: bool
    made: Provenance | None = field(default=None, init=False)

    def note(self, images: Tensor) -> None:
        if (made := _made(images)) is not None:
            before = self.made
            self.made = made if before is None else before.and_then(made)

    def said(self, **of_file: Any) -> dict[str, Any] | None:
        made = self.made
        return None if made is None else dataclasses.replace(made, **of_file).to_dict()

    def describe(self) -> str:
        return "nothing was written"


@dataclass
class Grid(OneFile):
    """A picture; without columns, of one image as it is."""

    columns: int | None
    scale: int
    images: list[Pixels] = field(default_factory=list)

    def add(self, images: Tensor) -> None:
        self.note(images)
        self.images.extend(to_pixels(images))

    def finish(self) -> None:
        sheet = make_grid(self.images, self.columns) if self.columns else self.images[0]
        said = self.said(columns=self.columns, scale=self.scale)
        write_image(enlarge(sheet, self.scale), self.path, said, force=self.force)


@dataclass
class Arrays(OneFile):
    """An .npz."""

    parts: list[tuple[Any, Any]] = field(default_factory=list)

    def add(self, images: Tensor) -> None:
        self.note(images)
        self.parts.append(arrays_of(images, _made(images)))

    def finish(self) -> None:
        images, labels = map(np.concatenate, zip(*self.parts, strict=True))
        write_arrays(images, labels, self.path, self.said(), force=self.force)


def make_folder(
    path: Path,
    names: Sequence[str],
    side: int,
    scale: int | None,
    force: bool,
    resume: bool | None = None,
) -> Folder:
    """None of these files may exist, unless forced; the first ones may, where they are resumed.
    `resume` is None for a command that can't."""
    done = 0
    while resume and done < len(names) and (path / names[done]).exists():
        done += 1
    refuse_to_replace((path / name for name in names[done:]), force)
    with reported_as("--out"):
        check_settings_file(path)
    scale = scale or 1
    _check_side(side, scale)
    return Folder(path, names, scale, force, done, resumable=resume is not None)


def make_grid_file(
    path: Path,
    images: int,
    per_label: int,
    columns: int | None,
    side: int,
    scale: int | None,
    force: bool,
) -> Grid:
    """Unless columns are given: one image as it is; a row for each label where there are several
    with several images, else near-square."""
    if images == 1 and columns is None:
        return make_single(path, (side, side), scale, force)
    if columns is None:
        rows_of_labels = images > per_label > 1
        columns = per_label if rows_of_labels else near_square(images)
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
    columns = near_square(images)
    grid = _make_grid_of(path, images, columns, size, scale, force)
    for image in first:
        grid.add(image)
    return grid


def make_single(path: Path, size: tuple[int, int], scale: int | None, force: bool) -> Grid:
    scale = scale or 1
    _check_side(max(size), scale)
    return Grid(path, force, None, scale)


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
    return Grid(path, force, columns, scale)


def _check_side(side: int, scale: int) -> None:
    if side > LONGEST_SIDE:
        raise bad("--out", f"a picture of {side} pixels a side; allowed are up to {LONGEST_SIDE}")
    if side * scale > LONGEST_SIDE:
        raise bad("--scale", f"{scale}; allowed is up to {LONGEST_SIDE // side} for this picture")
