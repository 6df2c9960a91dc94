"""`marfast sample`: many images, by any number of processes on any number of machines."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import print_json, print_pairs, progress_bar
from marfast.cli.errors import reported_as
from marfast.cli.target import check_folder

if TYPE_CHECKING:
    from pathlib import Path

    from marfast.evaluation import Place, Run
    from marfast.generation import Pipeline


def sample(
    out: Annotated[
        str, typer.Option(metavar="DIR", help="A new folder, or that of the same run, to go on.")
    ],
    count: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images, the classes in turn. [default: 50000]"),
    ] = None,
    model: options.Model = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    protocol: options.Protocol = None,
    settings: options.Set = None,
    seed: options.Seed = 0,
    kind: Annotated[
        Literal["tar", "npz", "png"],
        typer.Option(
            "--format",
            help="tar: WebDataset's, of PNG; npz: arr_0, as ADM's evaluator has it; png: folders.",
        ),
    ] = "tar",
    shard: options.Shard = None,
    part: options.Part = None,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Generate many images into a folder of shards.

    Under torchrun or srun, processes share the work by the folder alone. Stopped at any moment, the
    same command goes on, on any number of processes: it makes what is missing, and the same images.
    """
    folder = check_folder("--out", out, [], force=True)
    with startup.importing():
        from marfast.cli.job import choose_settings, find_model, load_model, resumable, this_place
        from marfast.evaluation import PROTOCOLS, Run, protocol_of
    place = this_place()
    with reported_as("--protocol"):
        chosen = None if protocol is None else protocol_of(protocol, "")
    checkpoint = find_model(model, preset, weights, vae)
    how = choose_settings(checkpoint.preset, settings, chosen)
    images = count or (chosen.count if chosen else PROTOCOLS["mar"].count)
    pipeline = load_model(checkpoint, vae, dtype, device, place)
    with reported_as("--out"):
        run = Run.of(pipeline, images, settings=how, seed=seed, kind=kind, shard=shard, part=part)
        if chosen is not None:
            chosen.check(run)
    with reported_as("--out"), resumable("what is finished stays, and the same command goes on"):
        result = _run(pipeline, run, folder, place)
    if not place.leads:
        return
    if as_json:
        print_json(result)
        return
    made, seconds = result["made"], result["seconds"]
    print_pairs(
        [
            ("images", f"{run.count}: {run.balance()}"),
            ("made now", f"{made} by {place.ranks} process{'es' * (place.ranks > 1)}"),
            ("time", f"{seconds:.1f} s ({made / seconds:.2f} images/s)"),
            ("shards", f"{result['shards']} of {run.shard}"),
            ("folder", folder),
        ]
    )


def _run(pipeline: "Pipeline", run: "Run", folder: "Path", place: "Place") -> dict[str, Any]:
    """Fill the folder; what there is to tell about it."""
    from marfast.evaluation import sample as fill
    from marfast.evaluation.shards import shard_files

    ids = run.shards
    files = shard_files(folder, run)
    missing = sum(len(ids[i]) for i, file in enumerate(files) if not file.exists())
    start = time.perf_counter()
    with progress_bar("sampling", shown=place.leads) as report:
        fill(
            pipeline,
            run,
            folder,
            place=place,
            progress=lambda done, of: report("sampling", done, of),
        )
    seconds = time.perf_counter() - start
    return {
        "images": run.count,
        "made": missing,
        "seconds": round(seconds, 3),
        "images_per_second": round(missing / seconds, 3),
        "processes": place.ranks,
        "shards": len(files),
        "out": str(folder),
    }
