"""`marfast cache`: a folder of images as latents, which training reads."""

from typing import Annotated

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs, progress_bar
from marfast.cli.errors import check_device, reported_as
from marfast.cli.target import check_folder
from marfast.cli.train import NAMED


def cache(
    data: Annotated[
        str, typer.Option(metavar="DIR", help="Images, in a folder for each class or all in one.")
    ],
    vae: Annotated[
        str, typer.Option(metavar="FILE", help="The tokenizer, as for generate: kl16.ckpt.")
    ],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="The cache; files that are there are left alone.")
    ],
    img_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Side of the squares that are encoded.")
    ] = 256,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images to encode at a time.")
    ] = 16,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, metavar="N", help="Threads that read images.")
    ] = 4,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    as_json: options.AsJson = False,
) -> None:
    """Encode images once for training: a file each, as LTH14/mar's main_cache.py writes them.

    Stopped at any moment, the same command goes on; under torchrun, each process makes its share.
    """
    folder = check_folder("--out", out, [], force=True)
    with startup.importing():
        import torch

        from marfast.cli.job import resumable, this_place
        from marfast.model.autoencoder import load_tokenizer
        from marfast.training import cache as fill
    place = this_place()
    found_device = check_device(f"cuda:{place.local_rank}" if device == "cuda" else device)
    if threads is not None:
        torch.set_num_threads(threads)
    with reported_as("--vae"):
        tokenizer = load_tokenizer(vae)
    names = {"side": "--img-size", "images": "--data", "data": "--data"}
    with (
        reported_as("--out", **names),
        resumable("what is finished stays, and the same command goes on"),
        progress_bar("encoding", shown=place.leads) as report,
    ):
        made = fill(
            data,
            tokenizer,
            folder,
            side=img_size,
            batch=batch,
            workers=workers,
            device=found_device,
            place=place,
            progress=lambda done, of: report("encoding", done, of),
        )
    for path, why in [*made.unreadable.items()][:NAMED]:
        echo(f"left out: {path}: {why}", err=True)
    if not place.leads:
        return
    if as_json:
        told = {"made": made.made, "there": made.there, "unreadable": made.unreadable}
        print_json(told | {"out": str(folder)})
    else:
        print_pairs(
            [
                ("made", made.made),
                ("there before", made.there),
                ("left out", f"{len(made.unreadable)} that can't be read"),
                ("folder", folder),
            ]
        )
