"""Image files that are whole or not there."""

from pathlib import Path
from typing import Any

from PIL import Image

from marfast.cli.target import FORMATS
from marfast.files import replacing
from marfast.pixels import Pixels

LONGEST_SIDE = 16383  # pixels: WebP's limit, the least of the three
CHANNELS = (1, 3)  # grey and RGB

_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


def write_image(pixels: Pixels, path: Path, *, force: bool = False) -> None:
    """Write [H, W, C] in the format of the path's suffix; what is there only if forced."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    kind = FORMATS[path.suffix.lower()]
    with replacing(path, force=force) as unfinished, unfinished.open("wb") as file:
        image.save(file, kind, **_OPTIONS.get(kind, {}))
