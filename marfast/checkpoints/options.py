"""The preset in the command-line options that LTH14/mar's main_mar.py stores in a checkpoint."""

import reprlib
from collections.abc import Mapping
from typing import Any

from marfast.checkpoints.presets import MAR_PRESETS, Preset, preset_of

ARCHITECTURE = (
    "img_size",
    "vae_stride",
    "patch_size",
    "vae_embed_dim",
    "class_num",
    "buffer_size",
    "diffloss_d",
    "diffloss_w",
)
"""Options that are arguments of the model, under the same names in `Architecture`."""


def preset_from_options(options: Mapping[str, Any], source: str) -> Preset | None:
    """What the options of a training run say about its model; None if they name no known model.

    `model` gives widths, depths and heads, the options above the rest, `num_sampling_steps` the
    sampling steps. Other settings are the paper's for that model: the options have those of the
    run's own evaluation, by default without guidance. An option that is not there is as the preset
    has it; classes have the preset's names where there are as many. CheckpointError names the
    source and the option.
    """
    named = MAR_PRESETS.get(options["model"]) if type(options.get("model")) is str else None
    if named is None:
        return None
    names = (*ARCHITECTURE, "num_sampling_steps")
    said = {name: _scalar(options[name]) for name in names if name in options}
    steps = str(said.pop("num_sampling_steps", named.settings.steps))
    data = named.to_dict()
    data["architecture"] |= said
    architecture = preset_of(data | {"settings": {"num_iter": 1}}, source).architecture
    if architecture.class_num != named.architecture.class_num:
        del data["classes"]
    data["settings"] |= {
        "num_iter": min(named.settings.num_iter, architecture.seq_len),
        "steps": int(steps) if steps.isdecimal() and len(steps) < 10 else steps,
    }
    return preset_of(data, source)


def _scalar(value: Any) -> int | float | str | None:
    """As it is, or what is said about it: of other things a pickle may hold any amount."""
    return value if isinstance(value, int | float | str | None) else reprlib.repr(value)
