"""What a generation returns: a tensor that a notebook shows, and that knows how it was made."""

import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from marfast.errors import ArgumentError, check_whole
from marfast.files import sweep
from marfast.generation.provenance import Making, Provenance
from marfast.generation.runs import note_run
from marfast.image_files import (
    ARRAYS,
    CHANNELS,
    as_picture,
    check_suffix,
    enlarge,
    make_grid,
    write_arrays,
    write_image,
)
from marfast.pixels import to_pixels

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 100
"""Images of a batch that a notebook shows."""
VIEWABLE = 112
"""Pixels along a side, to at most which small images are enlarged for the eye."""


class Generated(Tensor):
    """Images [B, C, H, W] in [−1, 1], or latents, as `Pipeline.generate` returns them. Whatever is
    computed from it is a plain tensor; a notebook shows it, and `marfast.save` writes how it was
    made."""

    # as torch.nn.Parameter has it: results are plain tensors
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _made: tuple[Making, int, bool]
    _as_made: int

    @classmethod
    def of(
        cls, images: Tensor, making: Making, first: int = 0, viewable: bool = True
    ) -> "Generated":
        """The images `first` and following of a run."""
        found = images.as_subclass(cls)
        found._made, found._as_made = (making, first, viewable), _version(images)
        return found

    @property
    def provenance(self) -> Provenance | None:
        """How they were made; None once they were written to."""
        if not hasattr(self, "_made") or _version(self) != self._as_made:
            return None
        making, first, _ = self._made
        return making.of(first, len(self))

    def within(self, wanted: range) -> "Generated":
        """Those of these that are images of `wanted`, by their numbers in the batch."""
        making, first, viewable = self._made
        low = max(wanted.start - first, 0)
        rows = self[low : wanted.stop - first]
        return Generated.of(rows, making, first + low, viewable)

    def joined(self, parts: "Sequence[Generated]") -> "Generated":
        """Parts of one run, this the first of them."""
        return Generated.of(torch.cat([*parts]), *self._made)

    def _repr_png_(self) -> bytes | None:
        if not hasattr(self, "_made") or not self._made[2] or self.shape[1] not in CHANNELS:
            return None
        pixels = to_pixels(self[:SHOWN])
        sheet = make_grid([*pixels], near_square(len(pixels)))
        buffer = io.BytesIO()
        as_picture(enlarge(sheet, scale_for(pixels.shape[1]))).save(buffer, "PNG")
        return buffer.getvalue()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone()


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def near_square(images: int) -> int:
    """Columns of a grid that is about as wide as high."""
    return math.ceil(math.sqrt(images))


def scale_for(side: int) -> int:
    """What makes small images large enough to look at."""
    return max(1, VIEWABLE // side)


def to_pil(images: Tensor) -> "list[Image.Image]":
    """Pillow's images of a batch [B, C, H, W], or of one [C, H, W], in [−1, 1], of 1 channel (grey)
    or 3. ArgumentError for anything else."""
    return [as_picture(pixels) for pixels in to_pixels(_checked(images))]


def save(
    images: Tensor,
    path: str | Path,
    *,
    columns: int | None = None,
    scale: int | None = None,
    force: bool = False,
) -> None:
    """Write images, and in the file how they were made, where they are as `generate` or `edit`
    returned them: `marfast info FILE` tells it, `marfast generate --like FILE` makes them again.

    images: [B, C, H, W], or one [C, H, W], in [−1, 1]; latents go into an .npz.
    path: a .png, .jpg or .webp for one picture, a grid of several; an .npz for arr_0, uint8 [B, H,
        W, C] (latents as they are) and arr_1, their labels (−1 where unknown); a folder (a path
        that ends in / or has no suffix) for a .png of each.
    columns: of a grid; None makes it about square.
    scale: the side of a pixel; None is 1, and more in a grid of small images.
    force: replace files that exist.

    Raises ArgumentError for what can't be written, FileExistsError, or another OSError.
    """
    target = Path(path)
    provenance = images.provenance if isinstance(images, Generated) else None
    of_file: dict[str, Any] = {} if scale is None else {"scale": check_whole("scale", scale, 1)}
    if str(path).endswith("/") or target.is_dir() or not target.suffix:
        pictures = to_pixels(_checked(images))
        if provenance is not None:
            note_run(target, dataclasses.replace(provenance, **of_file))
        for i, pixels in enumerate(pictures):
            said = said_in_file(provenance, i, 1, **of_file)
            write_image(enlarge(pixels, scale or 1), target / f"{i:04}.png", said, force=force)
        return
    check_suffix(target)
    sweep(target.parent)
    if target.suffix.lower() == ARRAYS:
        said = said_in_file(provenance, 0, len(images), **of_file)
        write_arrays(*arrays_of(images, provenance), target, said, force=force)
        return
    pixels = to_pixels(_checked(images))
    if len(pixels) == 1 and columns is None:
        sheet, scale = pixels[0], scale or 1
    else:
        columns = check_whole("columns", columns or near_square(len(pixels)), 1)
        sheet, scale = make_grid([*pixels], columns), scale or scale_for(pixels.shape[1])
        of_file["columns"] = columns
    said = said_in_file(provenance, 0, len(pixels), **of_file | {"scale": scale})
    write_image(enlarge(sheet, scale), target, said, force=force)


def said_in_file(
    provenance: Provenance | None, first: int, count: int, **of_file: Any
) -> dict[str, Any] | None:
    """What a file says of these of the images."""
    if provenance is None:
        return None
    first += provenance.first
    return dataclasses.replace(provenance, first=first, count=count, **of_file).to_dict()


def arrays_of(images: Tensor, provenance: Provenance | None) -> tuple[Any, Any]:
    """What an .npz holds: images [N, H, W, C] (uint8) or latents [N, C, H, W], and labels [N]."""
    viewable = not isinstance(images, Generated) or images._made[2]
    batch = images[None] if images.dim() == 3 else images
    array = to_pixels(_checked(batch)) if viewable else batch.cpu().numpy()
    labels = [-1] * len(batch)
    if provenance is not None:
        labels = [-1 if label is None else label for label in provenance.each_label]
    return array, np.array(labels, np.int64)


def _checked(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = getattr(images, "dtype", type(images).__name__)
        raise ArgumentError("images", given, "allowed are tensors of floating-point numbers")
    batch = images[None] if images.dim() == 3 else images
    if batch.dim() != 4 or batch.shape[1] not in CHANNELS or not batch.numel():
        allowed = "allowed are [B, 1, H, W] and [B, 3, H, W], or one of them"
        raise ArgumentError("images", f"shape {list(images.shape)}", allowed)
    if isinstance(images, Generated) and hasattr(images, "_made") and not images._made[2]:
        raise ArgumentError("images", "latents", "load the model with its tokenizer, vae=…")
    return batch
