"""`marfast generate`: images from labels, as one grid or as single files."""

import math
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs, progress_bar
from marfast.cli.errors import bad, check_environment, reported_as
from marfast.cli.labels import file_names, parse_labels
from marfast.cli.target import check_target, refuse_to_replace
from marfast.errors import is_out_of_memory
from marfast.files import sweep

if TYPE_CHECKING:
    from marfast.checkpoints import Preset
    from marfast.cli.output import Output
    from marfast.generation import Pipeline

MOST_IMAGES = 100_000
FOLDER_PARTS = 32  # a folder fills in about so many steps,
FOLDER_PART = 8  # of at least so many images: fewer at a time are slower

Labels = list[int | None]


def _setting(what: str, **more: Any) -> Any:
    return typer.Option(help=f"{what} [default: the model's]", **more)


def generate(
    labels: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help='Classes, by number, range or name, or "none": 3, 0-9, sneaker, "0,3,bag".',
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="A .png, .jpg or .webp for one grid of images, or a folder for a .png of each.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="An embedded model's name, a .safetensors, a .pth as LTH14/mar saves it, or a "
            "folder with model.safetensors and config.json.",
        ),
    ] = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The tokenizer of a model of latents: kl16.ckpt, or a .safetensors or .pth with "
            "its keys.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16"] | None,
        typer.Option(help="Compute products in half precision. [default: float32]"),
    ] = None,
    per_label: Annotated[int, typer.Option(min=1, metavar="N", help="Images for each label.")] = 1,
    num_iter: Annotated[int | None, _setting("Autoregressive iterations.", metavar="N")] = None,
    steps: Annotated[
        str | None, _setting("Denoising steps, or a respacing as ddim50.", metavar="N")
    ] = None,
    cfg: Annotated[float | None, _setting("Guidance scale; 1 is none.", metavar="X")] = None,
    cfg_schedule: Annotated[
        Literal["linear", "constant"] | None, _setting("Guidance over the iterations.")
    ] = None,
    temperature: Annotated[float | None, _setting("Scale of the noise.", metavar="X")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of the whole run.")
    ] = 0,
    part: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images to compute at a time. [default: by memory]"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, metavar="N", help="CPU threads. [default: PyTorch's]"),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Side of a pixel in the file. [default: 1; more in a grid of small images]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep a folder's files from an interrupted run and make the others."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the options and files, and stop.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Generate images, as a grid or as single files.

    The same labels, seed and settings give the same images. An interrupted run leaves the single
    files that were finished, and --resume goes on after them.
    """
    if resume and force:
        raise bad("--resume", "--force replaces the files that --resume keeps; give one of them")
    target = check_target(out)
    if resume and not target.is_folder:
        raise bad("--resume", f"{out} is one file; only a folder's images can be resumed")
    if not target.is_folder:
        refuse_to_replace([target.path], force)
    with startup.importing():
        import torch

        from marfast.checkpoints import find, get_preset
        from marfast.cli.output import Folder, make_folder, make_grid_file
        from marfast.generation.load import find_tokenizer, load
    check_environment()
    with reported_as("--preset"):
        named = None if preset is None else get_preset(preset)
    with reported_as("--model"):
        checkpoint = find(model, named, weights)
    found = checkpoint.preset
    settings = {
        "num_iter": num_iter,
        "steps": int(steps) if steps and re.fullmatch("[0-9]{1,9}", steps) else steps,
        "cfg": cfg,
        "cfg_schedule": cfg_schedule,
        "temperature": temperature,
    }
    _check_model(model, found, vae, settings)
    side = found.architecture.image_side

    kinds = parse_labels(labels, found.architecture.class_num, found.classes)
    count = len(kinds) * per_label
    if count > MOST_IMAGES:
        raise bad(
            "--per-label", f"{per_label} makes {count} images; allowed are up to {MOST_IMAGES}"
        )
    wanted = [label for label in kinds for _ in range(per_label)]
    output: Output
    if target.is_folder:
        names = file_names(wanted, found.classes, seed)
        output = make_folder(target.path, names, side, scale, force, resume)
    else:
        output = make_grid_file(target.path, len(kinds), per_label, side, scale, force)

    with reported_as("--vae"):
        tokenizer = None if vae is None else find_tokenizer(vae, found.architecture)
    if dry_run:
        return
    sweep(target.path if target.is_folder else target.path.parent)
    with reported_as("--model"):
        half = None if dtype is None else getattr(torch, dtype)
        pipeline = load(checkpoint, vae=tokenizer, dtype=half)
    if threads is not None:
        torch.set_num_threads(threads)
    if part is None and target.is_folder:
        part = min(pipeline.largest_part, max(FOLDER_PART, math.ceil(count / FOLDER_PARTS)))
    first = output.written if isinstance(output, Folder) else 0
    result = _run(pipeline, wanted, output, seed=seed, part=part, first=first, **settings)
    if as_json:
        print_json(result)
    else:
        _print(result, "folder" if target.is_folder else "file")


def _check_model(model: str, found: "Preset", vae: str | None, settings: Mapping[str, Any]) -> None:
    """Errors for a model that makes no images and for settings it can't use."""
    from marfast.cli.images import CHANNELS

    what = found.architecture
    if vae is None and not what.makes_pixels:
        raise bad(
            "--model",
            f"{model} makes latents; --vae names the tokenizer that turns them into images",
        )
    if vae is not None and what.makes_pixels:
        raise bad("--vae", f"{vae}; {model} makes pixels and needs none")
    if what.makes_pixels and what.vae_embed_dim not in CHANNELS:
        allowed = " or ".join(map(str, CHANNELS))
        raise bad(
            "--model", f"{model}: images of {what.vae_embed_dim} channels; allowed are {allowed}"
        )
    with reported_as("--model"):
        found.settings.replace(what.seq_len, **settings)


def _run(
    pipeline: "Pipeline", labels: Labels, output: "Output", first: int, **settings: Any
) -> dict[str, Any]:
    """Generate the images from `first` on into the output; what there is to tell about it."""
    from marfast.ops import choice

    start = time.perf_counter()
    try:
        with progress_bar("generating") as report, choice.used() as used:

            def progress(done: int, total: int) -> None:
                report("generating", done, total)

            for images in pipeline.generate_parts(
                labels, first=first, progress=progress, **settings
            ):
                output.add(images)
            output.finish()
    except KeyboardInterrupt:
        echo(f"interrupted: {output.describe()}", err=True)
        raise typer.Exit(startup.INTERRUPTED) from None
    except (OSError, MemoryError, RuntimeError) as error:
        memory = is_out_of_memory(error)
        if not memory and not isinstance(error, OSError):
            raise
        said = "out of memory" if memory else f"{output.path}: {error}"
        echo(f"error: {said}; {output.describe()}", err=True)
        raise typer.Exit(2 if memory else 1) from None
    seconds = time.perf_counter() - start
    made = len(labels) - first
    return {
        "images": made,
        "seconds": round(seconds, 3),
        "images_per_second": round(made / seconds, 3),
        "backends": {op: sorted(backends) for op, backends in used.items()},
        "out": str(output.path),
    }


def _print(result: Mapping[str, Any], kind: str) -> None:
    backends = (f"{op}: {', '.join(names)}" for op, names in result["backends"].items())
    print_pairs(
        [
            ("images", result["images"]),
            ("time", f"{result['seconds']:.1f} s ({result['images_per_second']:.2f} images/s)"),
            ("backends", "; ".join(backends)),
            (kind, result["out"]),
        ]
    )
