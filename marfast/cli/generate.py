"""`marfast generate`: images from labels, as one grid or as single files."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import print_json
from marfast.cli.errors import bad, check_device, check_environment, reported_as
from marfast.cli.labels import file_names, parse_labels
from marfast.cli.like import (
    Like,
    check_tokenizer,
    check_weights,
    is_of_another_kind,
    tell_place,
)
from marfast.cli.options import interval_of, steps_of, was_given
from marfast.cli.target import check_target, refuse_to_replace
from marfast.files import sweep

if TYPE_CHECKING:
    from marfast.cli.output import Output

MOST_IMAGES = 100_000
FOLDER_PARTS = 32  # a folder fills in about so many steps,
FOLDER_PART = 8  # of at least so many images: fewer at a time are slower


def generate(
    context: typer.Context,
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
            help="A .png, .jpg or .webp for one image or a grid; an .npz for arr_0, uint8 NHWC "
            "(latents, without --vae), and arr_1, labels; or a folder for a .png of each.",
        ),
    ],
    like: Like = None,
    model: options.Model = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    per_label: Annotated[int, typer.Option(min=1, metavar="N", help="Images for each label.")] = 1,
    first: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of all these images, begin with this one.")
    ] = 0,
    count: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Make so many of them. [default: all that follow]"),
    ] = None,
    num_iter: Annotated[
        int | None, options.setting("Autoregressive iterations.", metavar="N")
    ] = None,
    steps: options.Steps = None,
    cfg: options.Cfg = None,
    cfg_schedule: options.CfgSchedule = None,
    temperature: options.Temperature = None,
    sampler: options.Sampler = None,
    eta: options.Eta = None,
    guidance_interval: options.GuidanceInterval = None,
    seed: options.Seed = 0,
    seed_per_image: Annotated[
        bool,
        typer.Option(
            "--seed-per-image",
            help="Image i has seed --seed + i, so that it is the same whatever is made beside it.",
        ),
    ] = False,
    part: options.Part = None,
    threads: options.Threads = None,
    columns: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Of a grid. [default: --per-label of several labels, else about square]",
        ),
    ] = None,
    scale: options.Scale = None,
    force: options.Force = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep a folder's files from an interrupted run and make the others."
        ),
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Generate images, as a grid, as single files or as arrays.

    The same labels, seed and settings give the same images; each file says how it was made
    (marfast info FILE), and --like makes it again. An interrupted run leaves the single files that
    were finished, and --resume goes on after them.
    """
    if resume and force:
        raise bad("--resume", "--force replaces the files that --resume keeps; give one of them")
    target = check_target(out)
    if resume and not target.is_folder:
        raise bad("--resume", f"{out} is one file; only a folder's images can be resumed")
    if not target.is_folder:
        refuse_to_replace([target.path], force)
    if target.is_arrays and was_given(context, "scale"):
        raise bad("--scale", f"{out} holds no pixels to enlarge")
    if (target.is_arrays or target.is_folder) and was_given(context, "columns"):
        raise bad("--columns", f"{out} is no grid")
    check_tokenizer(context, vae)
    with startup.importing():
        from marfast.cli.model import load_model, open_model, open_tokenizer
        from marfast.cli.output import Arrays, Folder, make_folder, make_grid_file
        from marfast.cli.run import print_result, run
        from marfast.generation.provenance import seeds_from
        from marfast.generation.runs import check_made_by
    check_environment()
    place = check_device(device)
    settings: dict[str, Any] = {
        "num_iter": num_iter,
        "steps": steps_of(steps),
        "cfg": cfg,
        "cfg_schedule": cfg_schedule,
        "temperature": temperature,
        "sampler": sampler,
        "eta": eta,
        "guidance_interval": interval_of(guidance_interval),
    }
    checkpoint = open_model(model, preset, weights, vae, settings, latents=target.is_arrays)
    found = checkpoint.preset
    side = found.architecture.image_side

    kinds = parse_labels(labels, found.architecture.class_num, found.classes)
    images = len(kinds) * per_label
    if images > MOST_IMAGES:
        raise bad(
            "--per-label", f"{per_label} makes {images} images; allowed are up to {MOST_IMAGES}"
        )
    every = [label for label in kinds for _ in range(per_label)]
    if first >= images:
        raise bad("--first", f"{first}; allowed are 0 to {images - 1}, the images of all labels")
    if count is not None and count > images - first:
        raise bad("--count", f"{count}; allowed are 1 to {images - first}, which follow --first")
    count = count or images - first
    is_grid = not target.is_folder and (columns is not None or count > 1)
    if is_of_another_kind(context, is_grid) and not was_given(context, "scale"):
        scale = None
    seeds: int | list[int] = seeds_from(seed, images) if seed_per_image else seed
    output: Output
    if target.is_folder:
        names = file_names(every, found.classes, seeds)[first : first + count]
        output = make_folder(target.path, names, side, scale, force, resume)
    elif target.is_arrays:
        output = Arrays(target.path, force)
    else:
        output = make_grid_file(target.path, count, per_label, columns, side, scale, force)

    tokenizer = open_tokenizer(vae, checkpoint)
    if dry_run:
        return
    sweep(target.folder)
    pipeline = load_model(checkpoint, tokenizer, dtype, threads, place)
    if part is None and target.is_folder:
        part = min(pipeline.largest_part, max(FOLDER_PART, math.ceil(count / FOLDER_PARTS)))
    asked: dict[str, Any] = {"seed": seeds, "part": part, **settings}
    done = output.written if isinstance(output, Folder) else 0
    if like or done:
        made = pipeline.provenance(every, **asked)
        check_weights(context, made)
        if isinstance(output, Folder):
            with reported_as("--resume", out="--resume"):
                check_made_by(replace(made, scale=output.scale), output.finished)
    result = run(
        "generating",
        count - done,
        lambda progress: pipeline.generate_parts(
            every, first=first + done, count=count - done, progress=progress, **asked
        ),
        output,
    )
    tell_place(context, output.made)
    if as_json:
        print_json(result)
    else:
        print_result(result, target.kind)
