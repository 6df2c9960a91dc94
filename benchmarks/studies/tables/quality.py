"""How good images are: generated ones, edited ones, those of fewer steps."""

from benchmarks.studies.sources import read
from benchmarks.studies.tables.markdown import NOT_YET, percent, picture, table


def quality() -> str:
    """Fashion-MNIST by the classifier: the original's images, ours, real ones."""
    from marfast.evaluation.real_images import real_images

    beside, study = read("quality-against-original"), read("quality-fashion-mnist")
    names = ("num_iter", "steps", "cfg", "cfg_schedule", "temperature")
    settings = {name: beside["settings"][name] for name in names}
    most = max(row["n"] for row in study["rows"])
    [row] = [row for row in study["rows"] if row["n"] == most and settings.items() <= row.items()]
    rows = [
        [
            *(measured["what"], f"{measured['n']:,}", percent(measured["accuracy"], 1)),
            f"{measured['frechet_distance']:.2f}",
        ]
        for measured in (*beside["rows"], row | {"what": "marfast, embedded model"})
    ]
    rows.append(["real test images", "10,000", percent(real_images().accuracy, 1), ""])
    for n in (1_000, most):
        rows.append(["real training images", f"{n:,}", "", f"{real_images().distance(n):.2f}"])
    return table(["images", "count", "accuracy", "Fréchet distance"], rows)


def editing() -> str:
    """Edits of test images to another class, and what an edit of a quarter costs."""
    columns = ["lower half made anew, guidance's ramp over", "count", "seen as asked", "of a kind"]
    rows = [
        [
            *(row["ramp"], f"{row['n']:,}"),
            *(percent(row[n], 1) for n in ("accuracy", "accuracy_of_a_kind", "seen_as_before")),
            f"{row['frechet_distance']:.1f}",
        ]
        for row in read("editing-accuracy")["rows"]
    ]
    generated = read("quality-against-original")["rows"][-1]
    cells = ["a generation", f"{generated['n']:,}", percent(generated["accuracy"], 1), "", ""]
    rows.append([*cells, f"{generated['frechet_distance']:.1f}"])
    worth = table([*columns, "seen as before", "Fréchet distance"], rows)

    columns = ["model", "batch", "tokens made anew", "share"]
    rows = [
        [
            *(row["model"], str(row["batch"]), f"{row['unknown']} of {row['tokens']}"),
            *(percent(row["unknown"] / row["tokens"]), percent(row["ratio"])),
        ]
        for row in read("editing-time")["rows"]
    ]
    cost = table([*columns, "time of an edit against a generation"], rows)
    return f"{worth}\n{cost}"


def samplers() -> str:
    """Accuracy and Fréchet distance by sampler and steps, and the fewest steps that are near DDPM's
    hundred."""
    from benchmarks.studies.quality.samplers import base_of, by_sampler, fewest_steps

    if not (document := read("quality-samplers")):
        return NOT_YET
    found = by_sampler(document["rows"])
    base = base_of(found)
    steps = sorted({row["steps"] for rows in found.values() for row in rows})
    lines = []
    for name, rows in found.items():
        cells = {row["steps"]: row for row in rows}
        shown = [
            f"{percent(row['accuracy'], 1)}, {row['frechet_distance']:.1f}" if row else ""
            for row in map(cells.get, steps)
        ]
        fewest = fewest_steps(rows, base)
        near = "–" if fewest is None else f"{fewest} steps, {_rate(cells[fewest])}"
        lines.append([name, *shown, near])
    told = (
        f"{base['n']:,} images a cell: accuracy, Fréchet distance. DDPM's hundred steps make "
        f"{_rate(base)} (one {document['machine']['processor']} core)."
    )
    cells_of = table(["sampler", *(f"{count} steps" for count in steps), "near from"], lines)
    shown_as = picture("quality-samplers", "Quality by sampler and number of steps")
    return f"{told}\n\n{cells_of}\n{shown_as}"


def _rate(row: dict[str, float]) -> str:
    return f"{1 / row['cpu_seconds_per_image']:.1f} images a second"


def curve() -> str:
    """Whom nobody beats in both time and distance, and the picture of all."""
    from marfast.evaluation.curve import seconds_of
    from marfast.evaluation.curve_plot import label

    if not (document := read("curve-fashion-mnist")):
        return NOT_YET
    measured, distance = document["rows"], document["distance"]
    rows = []
    for row in filter(lambda row: row["front"], measured):
        figures = [row["figures"][name] for name in (distance, "accuracy")]
        shown = [f"{figure['value']:.3g} ± {figure['error']:.2g}" for figure in figures]
        rows.append([label(row, measured), row["dtype"], f"{seconds_of(row):.3f}", *shown])
    columns = ["setting", "dtype", "seconds an image", distance, "accuracy"]
    return f"{table(columns, rows)}\n{picture('curve-fashion-mnist', 'Quality against time')}"
