"""`marfast evaluate`: what a model's images are worth, by a named protocol."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import print_json, print_pairs, print_table, progress_bar
from marfast.cli.errors import bad, check_device, reported_as
from marfast.cli.target import check_folder

if TYPE_CHECKING:
    from marfast.evaluation import Court, Evaluation, Place, Protocol, Run
    from marfast.evaluation.sampling import Source


def evaluate(
    folder: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="What `marfast sample` has filled.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Instead: a model, whose images aren't kept."),
    ] = None,
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    protocol: options.Protocol = None,
    inception: options.Inception = None,
    statistics: options.Statistics = None,
    count: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="A model's images. [default: the protocol's]"),
    ] = None,
    settings: options.Set = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of a model's run. [default: 0]"),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A folder for a model's statistics: several processes share the work by it, and "
            "an interrupted run is gone on with.",
        ),
    ] = None,
    shard: options.Shard = None,
    part: options.Part = None,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Measure the images of a folder, or of a model.

    Each figure has the name of its protocol beside it; those of two protocols can't be compared.
    Under torchrun or srun, processes share the work. Nothing is downloaded.
    """
    if (folder is None) == (model is None):
        raise bad("DIR", "a folder or --model is to be evaluated; give one of them")
    with startup.importing():
        from marfast.cli.job import choose_settings, find_model, load_model, resumable, this_place
        from marfast.evaluation import Made, Run, Stored, protocol_of
        from marfast.evaluation import evaluate as judge
    place = this_place()
    where: Path | None
    source: Source
    if model is not None:
        if out is None and place.ranks > 1:
            raise bad("--out", f"none given; {place.ranks} processes share their work by a folder")
        where = None if out is None else check_folder("--out", out, [], force=True)
        checkpoint = find_model(model, preset, weights, vae)
        with reported_as("--protocol"):
            chosen = protocol_of(protocol, checkpoint.preset.name or "")
        how = choose_settings(checkpoint.preset, settings, chosen)
        court = open_court(chosen, inception, statistics, device, place)
        pipeline = load_model(checkpoint, vae, dtype, device, place)
        with reported_as("--model"):
            run = Run.of(
                pipeline,
                count or chosen.count,
                settings=how,
                seed=seed or 0,
                kind="none",
                shard=shard,
                part=part,
            )
        source = Made(pipeline, run)
    else:
        assert folder is not None
        only_of_models = {
            **{"--preset": preset, "--weights": weights, "--vae": vae, "--count": count},
            **{
                "--set": settings,
                "--seed": seed,
                "--out": out,
                "--shard": shard,
                "--part": part,
                "--dtype": dtype,
            },
        }
        for name, given in only_of_models.items():
            if given is not None:
                raise bad(name, "it is for --model; the images of a folder are there")
        where = Path(folder)
        with reported_as("DIR", folder="DIR"):
            source = Stored.of(where)
        with reported_as("--protocol"):
            chosen = protocol_of(protocol, source.run.model)
            chosen.check(source.run)
        court = open_court(chosen, inception, statistics, device, place)
    with (
        reported_as("DIR" if model is None else "--out"),
        resumable("the same command goes on" if where else "nothing was kept"),
        progress_bar("evaluating", shown=place.leads) as report,
    ):
        found = judge(
            source,
            court,
            where,
            place=place,
            progress=lambda done, of: report("evaluating", done, of),
        )
    if place.leads:
        _print(found, chosen, as_json)


def open_court(
    protocol: "Protocol", inception: str | None, statistics: str | None, device: str, place: "Place"
) -> "Court":
    """The judge and the real images, on the device of this process."""
    from marfast.evaluation import Court

    found = check_device(f"cuda:{place.local_rank}" if device == "cuda" else device)
    try:
        with reported_as("--inception"):
            return Court.of(protocol, inception, statistics, found)
    except ImportError as error:
        raise bad("--inception", str(error)) from None


def _print(found: "Evaluation", protocol: "Protocol", as_json: bool) -> None:
    run = found.run
    real = _real(run) if protocol.name == "fashion-mnist" else {}
    if as_json:
        print_json(found.to_dict() | ({"real": real} if real else {}))
        return
    rows = []
    for name, figure in found.figures.items():
        error = "" if figure.error is None else f"± {figure.error:.2g}"
        shown = f"{real[name]:.4g}" if name in real else ""
        rows.append((name, f"{figure.value:.4g}", error, *([shown] if real else [])))
    print_table(("measure", "value", "error", *(["real images"] if real else [])), rows)
    settings = ", ".join(f"{name} {value}" for name, value in vars(run.settings).items())
    print_pairs(
        [
            ("protocol", found.protocol),
            ("images", f"{run.count}: {run.balance()}"),
            ("settings", f"{settings}, {run.dtype}, seed {run.seed}"),
            ("model", f"{run.model or 'unnamed'}, weights {run.weights[:12]}"),
            ("judge", f"{found.judge}, weights {found.judge_weights[:12]}"),
            ("reference", found.reference),
        ]
    )


def _real(run: "Run") -> Mapping[str, Any]:
    """What real images get: training images, as many, beside the test images."""
    from marfast.evaluation.real_images import real_images

    known = real_images()
    distance = {}
    if known.counts[0] <= run.count <= known.counts[-1]:
        distance = {"Fréchet distance": known.distance(run.count)}
    return distance | {"accuracy": known.accuracy}
