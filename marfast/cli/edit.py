"""`marfast edit`: some of an image made anew, or more of it made on its sides."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import print_json
from marfast.cli.errors import bad, check_device, check_environment, reported_as
from marfast.cli.labels import file_names, parse_labels
from marfast.cli.options import interval_of, steps_of
from marfast.cli.target import check_target, refuse_to_replace
from marfast.files import sweep

if TYPE_CHECKING:
    from torch import Tensor

    from marfast.cli.output import Output
    from marfast.generation.progress import Progress

MOST_IMAGES = 10_000


def edit(
    image: Annotated[
        str, typer.Option(metavar="FILE", help="The image, grey or in colour as the model's.")
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="A .png, .jpg or .webp: the image, or a grid of several beside the original and "
            "the mask. An .npz for arr_0, uint8 NHWC, and arr_1, labels. Or a folder for a .png of "
            "each.",
        ),
    ],
    mask: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A picture: what isn't black is made anew."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Make a box anew: its top left corner, its sides."),
    ] = None,
    outpaint: Annotated[
        str | None,
        typer.Option(
            metavar="SIDES",
            help="Make pixels beside the image: left=8, or left=8,right=-8 to shift its content.",
        ),
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help='Class to make it of, by number or name, "none", or a list of them.',
        ),
    ] = "none",
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Variants for each label.")] = 1,
    grow: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Tokens round the mask to make anew, too. [default: 1 with a tokenizer, else 0]",
        ),
    ] = None,
    feather: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Pixels over which the mask's inner edge fades."),
    ] = 0,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Pixels that an outpainting's windows share. [default: about half]",
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Scale image and mask to the model's size.")
    ] = False,
    model: options.Model = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    num_iter: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Autoregressive iterations. [default: the model's, in proportion to the mask]",
        ),
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
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Make some of an image anew, as its other class would have it, or more of it on its sides.

    What isn't asked for stays as it is, pixel by pixel. One of --mask, --box and --outpaint says
    what is.
    """
    _check_one(mask=mask, box=box, outpaint=outpaint)
    if outpaint is not None and feather:
        raise bad("--feather", "--outpaint has nothing under the mask to fade from")
    if outpaint is None and overlap is not None:
        raise bad("--overlap", "only --outpaint has windows")
    target = check_target(out)
    if not target.is_folder:
        refuse_to_replace([target.path], force)
    with startup.importing():
        from marfast.cli.model import load_model, open_model, open_tokenizer
        from marfast.cli.output import Arrays, make_folder, make_single, make_variants
        from marfast.cli.regions import Region, read_image
        from marfast.cli.run import print_result, run
        from marfast.generation.arguments import check_amount
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
    checkpoint = open_model(model, preset, weights, vae, settings)
    found = checkpoint.preset
    what = found.architecture
    for name, amount in {"grow": grow, "feather": feather, "overlap": overlap}.items():
        if amount is not None:
            with reported_as(f"--{name}"):
                check_amount(name, amount, what.rows, what.image_side)
    kinds = parse_labels(label, what.class_num, found.classes, "--label")
    wanted = [kind for kind in kinds for _ in range(count)]
    if len(wanted) > MOST_IMAGES:
        given = f"{count} makes {len(wanted)} images"
        raise bad("--count", f"{given}; allowed are up to {MOST_IMAGES}")

    picture = read_image(image, what, resize, any_size=outpaint is not None)
    if outpaint is not None:
        region = Region.beside(picture, outpaint, what.image_side)
    elif mask is not None:
        region = Region.masked(picture, mask, what.image_side if resize else None)
    else:
        region = Region.boxed(picture, box or "")

    output: Output
    size = region.original.shape[2], region.original.shape[3]
    if target.is_folder:
        names = file_names(wanted, found.classes, seed)
        output = make_folder(target.path, names, max(size), scale, force)
    elif target.is_arrays:
        output = Arrays(target.path, force)
    elif len(wanted) == 1:
        output = make_single(target.path, size, scale, force)
    else:
        output = make_variants(target.path, region.shown(), len(wanted), size, scale, force)
    tokenizer = open_tokenizer(vae, checkpoint)
    if dry_run:
        return
    sweep(target.folder)
    pipeline = load_model(checkpoint, tokenizer, dtype, threads, place)
    images = picture.expand(len(wanted), -1, -1, -1)
    common: dict[str, Any] = {"seed": seed, "grow": grow, "part": part, **settings}

    def make(progress: "Progress") -> "Iterable[Tensor]":
        if region.sides:
            yield pipeline.outpaint(
                images, wanted, overlap=overlap, progress=progress, **region.sides, **common
            )
        else:
            masks = region.mask.expand(len(wanted), -1, -1)
            yield pipeline.edit(images, masks, wanted, feather=feather, progress=progress, **common)

    result = run("editing", len(wanted), make, output)
    if as_json:
        print_json(result)
    else:
        print_result(result, target.kind)


def _check_one(**regions: str | None) -> None:
    given = [f"--{name}" for name, value in regions.items() if value is not None]
    if not given:
        raise bad("--mask", "not given; --mask, --box or --outpaint says what to make")
    if len(given) > 1:
        raise bad(
            given[1], f"{given[0]} is given, too; allowed is one of --mask, --box, --outpaint"
        )
