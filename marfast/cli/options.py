"""Options that several commands have."""

import re
from typing import Annotated, Any, Literal

import typer

from marfast.cli.errors import bad


def setting(what: str, **more: Any) -> Any:
    return typer.Option(help=f"{what} [default: the model's]", **more)


Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="An embedded model's name, a .safetensors, a .pth as LTH14/mar saves it, or a "
        "folder with model.safetensors and config.json.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="What a model's file holds, if it does not say: mar_base, mar_large, mar_huge, an "
        "embedded model's name, or a config.json.",
    ),
]
Weights = Annotated[
    Literal["model_ema", "model"] | None,
    typer.Option(help="The entry of a .pth to take. [default: model_ema, if there]"),
]
Vae = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The tokenizer of a model of latents: kl16.ckpt, or a .safetensors or .pth with "
        "its keys.",
    ),
]
Dtype = Annotated[
    Literal["bfloat16", "float16"] | None,
    typer.Option(help="Compute products in half precision. [default: float32]"),
]
Steps = Annotated[
    str | None,
    setting(
        "Denoising steps, a respacing as ddim50 (which timesteps, not which sampler), or 50-5 from "
        "the first iteration to the last.",
        metavar="N",
    ),
]
Cfg = Annotated[float | None, setting("Guidance scale; 1 is none.", metavar="X")]
CfgSchedule = Annotated[
    Literal["linear", "constant"] | None, setting("Guidance over the iterations.")
]
Temperature = Annotated[float | None, setting("Scale of the noise.", metavar="X")]
Sampler = Annotated[Literal["ddpm", "ddim", "dpm++2m", "dpm++2m-sde"] | None, setting("Sampler.")]
Eta = Annotated[float | None, setting("DDIM's share of DDPM's noise, 0 to 1.", metavar="X")]
GuidanceInterval = Annotated[
    str | None,
    setting("Guide only steps whose t / 1000 lies in it, as 0.1,0.7.", metavar="LOW,HIGH"),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of the whole run.")
]
Part = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Images to compute at a time. [default: by memory]"),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, metavar="N", help="CPU threads. [default: PyTorch's]"),
]
Scale = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Side of a pixel in the file. [default: 1; more in a grid of small images]",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the options and files, and stop.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda or cuda:N; under torchrun or srun, cuda is that of the local rank.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A sampling setting, such as num_iter=64, steps=50 or cfg=3; repeatable. "
        "[default: the model's]",
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="fashion-mnist; inception; mar: the paper's count and settings of B, L and H, by "
        "Inception; mar-unguided.",
    ),
]
Inception = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="torch-fidelity's weights of Inception."),
]
Statistics = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Of real images: an .npz with mu and sigma."),
]
Shard = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Images of a shard, which an interruption loses. [default: a tenth, up to 1000]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def steps_of(given: str | None) -> int | str | None:
    """A count, or a respacing."""
    return int(given) if given and re.fullmatch("[0-9]{1,9}", given) else given


def interval_of(given: str | None) -> tuple[float, ...] | None:
    """Two numbers."""
    if given is None:
        return None
    try:
        numbers = tuple(map(float, given.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != 2:
        raise bad("--guidance-interval", f"{given!r}; allowed are two numbers, as 0.1,0.7")
    return numbers


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line, and not what `--like` or the program sets."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
