"""`marfast curve`: what images cost and what they are worth, setting by setting."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_table, progress_bar
from marfast.cli.errors import bad, reported_as
from marfast.cli.evaluate import open_court
from marfast.cli.target import check_file
from marfast.files import sweep

if TYPE_CHECKING:
    from marfast.bench.results import Row


def curve(
    model: options.Model = "fashion-mnist",
    preset: options.Preset = None,
    weights: options.Weights = None,
    vae: options.Vae = None,
    protocol: options.Protocol = None,
    inception: options.Inception = None,
    statistics: options.Statistics = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="NAME=V,V,…",
            help="Values of a setting or of dtype; all combinations are measured. [default: "
            "num_iter and steps around the model's own, in float32 and bfloat16]",
        ),
    ] = None,
    settings: options.Set = None,
    minutes: Annotated[
        float, typer.Option(min=0, metavar="N", help="How long it may take, 3 rounds at least.")
    ] = 10,
    rounds: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Instead: so many rounds.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=2, metavar="B", help="Images of each setting in a round.")
    ] = 50,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows as JSON, as they come.")
    ] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a picture (PNG).")] = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure seconds an image and quality, setting by setting, and mark whom nobody beats in both.

    All settings take turns with the same images. Figures are of as many images each as fit into the
    time: the fewer, the larger is a distance, so compare those of one table only.
    """
    file = None if out is None else check_file("--out", out, force)
    picture = None if plot is None else check_file("--plot", plot, force)
    with startup.importing():
        from marfast.bench import plots
        from marfast.bench.results import commit, machine, write_rows
        from marfast.cli.job import choose_settings, find_model, load_model, vary_settings
        from marfast.cli.settings import parse_vary
        from marfast.evaluation import Place, protocol_of
        from marfast.evaluation.curve import combinations, measure, points_of, usual_variation
        from marfast.evaluation.curve_plot import plot as draw
    if picture is not None:
        try:
            plots.require()
        except ImportError as error:
            raise bad("--plot", str(error)) from None
    checkpoint = find_model(model, preset, weights, vae)
    known = checkpoint.preset
    with reported_as("--protocol"):
        chosen = protocol_of(protocol, known.name or "")
        if chosen.strict:
            raise bad("--protocol", f"{chosen.name} says the settings, which are varied here")
    own = choose_settings(known, settings, None)
    seq_len = known.architecture.seq_len
    variation = parse_vary(vary) or usual_variation(own, seq_len)
    dtypes = [str(dtype) for dtype in variation.get("dtype", ["float32"])]
    for dtype in dtypes:
        if dtype not in ("float32", "bfloat16", "float16"):
            raise bad("--vary", f"dtype {dtype}; allowed are float32, bfloat16 and float16")
    changes = combinations({"dtype": dtypes} | variation)
    of_dtype = [str(change.pop("dtype")) for change in changes]
    varied = vary_settings(own, seq_len, changes)
    court = open_court(chosen, inception, statistics, device, Place())
    pipelines = {
        dtype: load_model(checkpoint, vae, None if dtype == "float32" else dtype, device, Place())
        for dtype in dict.fromkeys(dtypes)
    }
    with reported_as("--model"):
        points = points_of(pipelines, [*zip(of_dtype, varied, strict=True)], batch, seed)
        court.judge.check(points[0].source.run.side, points[0].source.run.channels)
    run = points[0].source.run
    facts = {
        "commit": commit(),
        "protocol": chosen.name,
        "distance": chosen.distance,
        "reference": court.reference.name,
        "judge_weights": court.judge.weights,
        "model": run.model or model,
        "weights": run.weights,
        "settings": asdict(own),
        "seed": seed,
        "batch": batch,
    }
    if file is not None:
        sweep(file.parent)
    found: list[Row] = []
    status = 0
    try:
        with progress_bar("measuring") as report:
            limit = None if rounds is not None else minutes
            for new in measure(points, court, minutes=limit, rounds=rounds, progress=report):
                written, found = bool(found), new
                if file is not None:
                    write_rows(file, found, force=force or written, **facts)
    except KeyboardInterrupt:
        status = startup.INTERRUPTED
        echo("interrupted" + ": what follows was finished before" * bool(found), err=True)
    if found and picture is not None:
        draw({"machine": machine(), **facts, "rows": found}, picture, force=force)
    if as_json:
        print_json(facts | {"rows": found})
    elif found:
        _print(found, chosen.name, court.reference.name)
    if status:
        raise typer.Exit(status)


def _print(rows: list["Row"], protocol: str, reference: str) -> None:
    names = [*rows[0]["figures"]]
    columns = ("setting", "dtype", "s an image", *names, "front")
    print_table(columns, [_cells(row, rows, names) for row in rows])
    echo(f"{rows[0]['images']} images each; protocol {protocol}; reference: {reference}")


def _cells(row: "Row", rows: list["Row"], names: list[str]) -> tuple[Any, ...]:
    from marfast.evaluation.curve_plot import label

    figures = [row["figures"][name] for name in names]
    shown = [
        f"{figure['value']:.4g}" + (f" ± {figure['error']:.2g}" if figure["error"] else "")
        for figure in figures
    ]
    seconds = row["seconds_an_image_p20_p50_p80"][1]
    return label(row, rows), row["dtype"], f"{seconds:.4f}", *shown, "*" if row["front"] else ""
