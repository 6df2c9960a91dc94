"""Files of images, whole or not there: pictures, grids, .npz, and what they say of themselves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marfast.errors import ArgumentError, MissingFile
from marfast.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from marfast.pixels import Pixels

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ARRAYS = ".npz"
LONGEST_SIDE = 16383  # pixels: WebP's limit, the least of the three
CHANNELS = (1, 3)  # grey and RGB
BETWEEN = 255  # white, between the images of a grid
KEY = "marfast"
"""Of what is said of the images: a PNG's text, or an array of text in an .npz. In JPEG and WebP it
is EXIF's description."""

Said = dict[str, Any]

_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF's
_MOST = {"JPEG": 65_000}
"""Bytes of EXIF that a format holds."""


def check_suffix(path: str | Path, option: str = "path") -> None:
    """ArgumentError, naming `option`, for a file whose suffix is of no kind that can be written."""
    suffix = Path(path).suffix.lower()
    known = suffix in (*FORMATS, ARRAYS)
    if suffix == ".webp":
        from PIL import features

        known = bool(features.check("webp"))
    if not known:
        allowed = ", ".join((*FORMATS, ARRAYS))
        raise ArgumentError(option, path, f"allowed are {allowed}, or a folder (end it with /)")


def enlarge(pixels: "Pixels", scale: int) -> "Pixels":
    """[H, W, C] -> [H·scale, W·scale, C]: each pixel becomes a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def grid_side(images: int, side: int) -> int:
    """Pixels along a row or column of a grid: images with a line around each."""
    return images * (side + 1) + 1


def make_grid(images: Sequence["Pixels"], columns: int) -> "Pixels":
    """A sheet of images [H, W, C], row by row from the top left."""
    import numpy as np

    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    shape = (grid_side(rows, height), grid_side(columns, width), channels)
    sheet = np.full(shape, BETWEEN, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top, left = grid_side(row, height), grid_side(column, width)
        sheet[top : top + height, left : left + width] = image
    return sheet


def as_picture(pixels: "Pixels") -> "Image.Image":
    """[H, W, C] as Pillow's."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def write_image(
    pixels: "Pixels", path: Path, said: Said | None = None, *, force: bool = False
) -> None:
    """Write [H, W, C] in the format of the path's suffix, and in it what is said of it; what is
    there only if forced."""
    kind = FORMATS[path.suffix.lower()]
    options = _OPTIONS.get(kind, {}) | _metadata(kind, said)
    with replacing(path, force=force) as unfinished, unfinished.open("wb") as file:
        as_picture(pixels).save(file, kind, **options)


def write_arrays(
    images: "npt.NDArray[Any]",
    labels: "npt.NDArray[np.int64]",
    path: Path,
    said: Said | None = None,
    *,
    force: bool = False,
) -> None:
    """Write an .npz as evaluators read it: arr_0 are images [N, H, W, C] (uint8) or latents [N, C,
    H, W], arr_1 their labels [N], −1 for none."""
    import numpy as np

    more = {} if said is None else {KEY: np.array(json.dumps(said))}
    with replacing(path, force=force) as unfinished, unfinished.open("wb") as file:
        np.savez(file, images, labels, **more)  # type: ignore[arg-type]


def _metadata(kind: str, said: Said | None) -> dict[str, Any]:
    """Options of Pillow's."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if said is None:
        return {}
    software, text = f"marfast {said['marfast']}", json.dumps(said)
    if kind == "PNG":
        info = PngInfo()
        info.add_text("Software", software)
        info.add_text(KEY, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif[_SOFTWARE] = software
    if len(text) < _MOST.get(kind, 1 << 20):
        exif[_DESCRIPTION] = text
    return {"exif": exif}


def read_said(path: str | Path) -> Said:
    """What a file says of its images. MissingFile, or ArgumentError naming `file` where it says
    nothing."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile("file", f"{path}: no such file")
    text = _text_in_arrays(path) if path.suffix.lower() == ARRAYS else _text_in_picture(path)
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ArgumentError("file", f"{path} does not say how it was made")
    return said


def _text_in_arrays(path: Path) -> str:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored[KEY]) if KEY in stored else ""
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError("file", f"{path}: not readable ({error})") from None


def _text_in_picture(path: Path) -> str:
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # no pixel is read
            with Image.open(path) as image:
                text = getattr(image, "text", {}).get(KEY)
                return str(text or image.getexif().get(_DESCRIPTION, ""))
    except Exception as error:  # Pillow raises many kinds on hostile bytes
        raise ArgumentError("file", f"{path}: not a picture that can be read ({error})") from None
