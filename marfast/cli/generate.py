"""`marfast generate`: images from labels, as one grid or as single files."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import print_json
from marfast.cli.errors import bad, check_environment
from marfast.cli.labels import file_names, parse_labels
from marfast.cli.options import interval_of, steps_of
from marfast.cli.target import check_target, refuse_to_replace
from marfast.files import sweep

if TYPE_CHECKING:
    from marfast.cli.output import Output

MOST_IMAGES = 100_000
FOLDER_PARTS = 32  # a folder fills in about so many steps,
FOLDER_PART = 8  # of at least so many images: fewer at a time are slower


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
    model: options.Model = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    dtype: options.Dtype = None,
    per_label: Annotated[int, typer.Option(min=1, metavar="N", help="Images for each label.")] = 1,
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
    part: options.Part = None,
    threads: options.Threads = None,
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
        from marfast.cli.model import load_model, open_model, open_tokenizer
        from marfast.cli.output import Folder, make_folder, make_grid_file
        from marfast.cli.run import print_result, run
    check_environment()
    settings = {
        "num_iter": num_iter,
        "steps": steps_of(steps),
        "cfg": cfg,
        "cfg_schedule": cfg_schedule,
        "temperature": temperature,
        "sampler": sampler,
        "eta": eta,
        "guidance_interval": interval_of(guidance_interval),
    }
    checkpoint = open_model(model, preset, weights, vae, settings)
    found = checkpoint.preset
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

    tokenizer = open_tokenizer(vae, checkpoint)
    if dry_run:
        return
    sweep(target.folder)
    pipeline = load_model(checkpoint, tokenizer, dtype, threads)
    if part is None and target.is_folder:
        part = min(pipeline.largest_part, max(FOLDER_PART, math.ceil(count / FOLDER_PARTS)))
    first = output.written if isinstance(output, Folder) else 0
    result = run(
        "generating",
        len(wanted) - first,
        lambda progress: pipeline.generate_parts(
            wanted, seed=seed, part=part, first=first, progress=progress, **settings
        ),
        output,
    )
    if as_json:
        print_json(result)
    else:
        print_result(result, "folder" if target.is_folder else "file")
