"""What a model is (its architecture), and known models with their settings."""

import dataclasses
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from marfast.checkpoints.meta import without_storage
from marfast.checkpoints.settings import Settings
from marfast.errors import ArgumentError, CheckpointError
from marfast.reference import MAR
from marfast.validation import differences, names, number, one_of, validated, whole

LARGEST_CONFIG = 1 << 20
"""Bytes of a config.json, or of a list of names."""
ASSETS = Path(str(resources.files("marfast") / "assets"))

Size = Annotated[int, whole(1, 65536)]
Short = Annotated[int, whole(1, 1024)]


@dataclass(frozen=True)
class Architecture:
    """Constructor arguments of `reference.MAR`, as plain data."""

    img_size: Size = 256
    vae_stride: Size = 16
    patch_size: Short = 1
    vae_embed_dim: Size = 16
    encoder_embed_dim: Size = 1024
    encoder_depth: Short = 16
    encoder_num_heads: Size = 16
    decoder_embed_dim: Size = 1024
    decoder_depth: Short = 16
    decoder_num_heads: Size = 16
    mlp_ratio: Annotated[float, number(0, 1024, above=True)] = 4.0
    norm_eps: Annotated[float, number(0, 1, above=True)] = 1e-6
    class_num: Size = 1000
    buffer_size: Size = 64
    diffloss_d: Short = 3
    diffloss_w: Size = 1024
    sequence: Annotated[bool, one_of(False, True)] = False
    """Tokens are a row of `img_size` vectors of `vae_embed_dim` numbers, and no image's."""

    @property
    def rows(self) -> int:
        """Of tokens, and columns: images are squares."""
        return 1 if self.sequence else self.columns

    @property
    def columns(self) -> int:
        return self.img_size // self.vae_stride // self.patch_size

    @property
    def seq_len(self) -> int:
        return self.rows * self.columns

    @property
    def makes_pixels(self) -> bool:
        """Whether tokens are pixels in [−1, 1], and neither a tokenizer's latents nor vectors."""
        return self.vae_stride == 1 and not self.sequence

    @property
    def image_side(self) -> int:
        """Pixels along a side of the images that come out."""
        token = self.vae_stride * self.patch_size
        return self.img_size // token * token

    @property
    def image_channels(self) -> int:
        """Of the images that come out."""
        return self.vae_embed_dim if self.makes_pixels else 3

    def check(self) -> None:
        """Raise ArgumentError for sizes that don't fit together."""
        if self.sequence:
            for name in ("vae_stride", "patch_size"):
                if (given := getattr(self, name)) != 1:
                    raise ArgumentError(f"architecture.{name}", given, "allowed is 1 of sequences")
        if self.seq_len < 1:
            raise ArgumentError("architecture", "an image of this size has no token")
        for name, heads, width in (
            ("encoder_num_heads", self.encoder_num_heads, self.encoder_embed_dim),
            ("decoder_num_heads", self.decoder_num_heads, self.decoder_embed_dim),
        ):
            if width % heads:
                allowed = f"allowed are divisors of the width, {width}"
                raise ArgumentError(f"architecture.{name}", heads, allowed)

    def differences(self, other: "Architecture") -> list[str]:
        """Where the other differs, as "name ours, not theirs"."""
        return differences(dataclasses.asdict(self), dataclasses.asdict(other))

    def build(self, *, steps: str = "100", clip_denoised: bool = False) -> MAR:
        """The reference module, in evaluation mode and without storage (on the meta device)."""
        with without_storage():
            module = self.module(num_sampling_steps=steps, clip_denoised=clip_denoised)
        return module.eval()

    def module(self, kind: type[MAR] = MAR, **more: Any) -> MAR:
        """The reference module, or one of a class of it; `more` are arguments that no weight's
        shape depends on."""
        return kind(**self.arguments(), **more)

    def arguments(self) -> dict[str, Any]:
        """What MAR's constructor takes, the reference's and (but for sequences) the original's."""
        options = dataclasses.asdict(self)
        options["norm_layer"] = partial(nn.LayerNorm, eps=options.pop("norm_eps"))
        if options.pop("sequence"):
            options["img_size"] = (1, self.img_size)
        return options


@dataclass(frozen=True)
class Preset:
    """A kind of model: architecture, default settings and, where known, its classes' names."""

    architecture: Annotated[Architecture, partial(validated, Architecture)]
    settings: Annotated[Settings, partial(validated, Settings)] = field(default_factory=Settings)
    classes: Annotated[tuple[str, ...], names] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preset":
        """From the contents of a config.json; ArgumentError names `preset` and the key."""
        try:
            preset: Preset = validated(cls, data)
            preset.architecture.check()
            preset.settings.check(preset.architecture.seq_len, "settings.")
        except ArgumentError as error:
            raise ArgumentError("preset", str(error).removeprefix("preset: ")) from None
        return preset

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def with_classes(self, classes: Sequence[str]) -> "Preset":
        """A copy with these names of its classes, in order; ArgumentError unless each has one."""
        count = self.architecture.class_num
        if len(classes) != count:
            allowed = f"allowed are {count}, one for each class"
            raise ArgumentError("classes", f"{len(classes)} names", allowed)
        return dataclasses.replace(self, classes=tuple(classes))

    @property
    def name(self) -> str | None:
        """Of the known preset that has this architecture, if there is one."""
        known = known_presets().items()
        same = (name for name, preset in known if preset.architecture == self.architecture)
        return next(same, None)


def read_names(path: Path) -> tuple[str, ...]:
    """The lines of a text file. CheckpointError or OSError names the file."""
    with path.open("rb") as file:
        text = file.read(LARGEST_CONFIG + 1)
    if len(text) > LARGEST_CONFIG:
        raise CheckpointError(f"{path}: allowed are up to {LARGEST_CONFIG} bytes of names")
    try:
        return tuple(text.decode().splitlines())
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not a text ({error})") from None


IMAGENET = read_names(ASSETS / "imagenet-classes.txt")
"""Names of the 1000 classes in the order of their folders (n01440764, …): torchvision's, but that
both corgis are called so, and no two names are alike."""


def _mar(width: int, depth: int, heads: int, head_d: int, head_w: int, cfg: float) -> Preset:
    """A model of the paper's appendix with its evaluation settings (section 5)."""
    transformers: dict[str, Any] = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("embed_dim", width), ("depth", depth), ("num_heads", heads))
    }
    return Preset(
        Architecture(**transformers, diffloss_d=head_d, diffloss_w=head_w),
        Settings(num_iter=256, steps=100, cfg=cfg),
        IMAGENET,
    )


MAR_PRESETS = {
    "mar_base": _mar(768, 12, 12, 6, 1024, 2.9),
    "mar_large": _mar(1024, 16, 16, 8, 1280, 3.0),
    "mar_huge": _mar(1280, 20, 16, 12, 1536, 3.2),
}


def embedded_models() -> dict[str, Path]:
    """Models that ship with the package: name -> folder."""
    return {file.parent.name: file.parent for file in sorted(ASSETS.glob("*/config.json"))}


def known_presets() -> dict[str, Preset]:
    """Every preset that has a name: the paper's, then the embedded models'."""
    folders = embedded_models().items()
    embedded = {name: read_config(folder / "config.json") for name, folder in folders}
    return MAR_PRESETS | embedded


def read_config(path: Path) -> Preset:
    """The preset that a config.json holds. CheckpointError or FileNotFoundError names the file."""
    with path.open("rb") as file:
        return parse_config(file.read(LARGEST_CONFIG + 1), str(path))


def parse_config(text: str | bytes, source: str) -> Preset:
    """The preset in a config.json. CheckpointError names the source and the key."""
    if len(text) > LARGEST_CONFIG:
        raise CheckpointError(f"{source}: allowed are up to {LARGEST_CONFIG} bytes of JSON")
    try:
        data = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not a JSON file ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{source}: {reprlib.repr(data)}; allowed is an object")
    return preset_of(data, source)


def preset_of(data: Mapping[str, Any], source: str) -> Preset:
    """The preset in a file's plain data. CheckpointError names the source and the key."""
    try:
        return Preset.from_dict(data)
    except ArgumentError as error:
        raise CheckpointError(f"{source}: {error.problem}") from None


def get_preset(preset: "str | Path | Mapping[str, Any] | Preset") -> Preset:
    """A preset by name (mar_base, …, or an embedded model's), config.json or its contents."""
    if isinstance(preset, Preset):
        return Preset.from_dict(preset.to_dict())
    if isinstance(preset, Mapping):
        return Preset.from_dict(preset)
    if str(preset) in known_presets():
        return known_presets()[str(preset)]
    if Path(preset).is_file():
        return read_config(Path(preset))
    known = ", ".join(known_presets())
    raise ArgumentError(
        "preset", repr(str(preset)), f"allowed are {known}, or the path of a config.json"
    )
