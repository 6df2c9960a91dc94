"""Training: what a step costs, what came of a model, what a killed run ends in."""

from benchmarks.studies.sources import Document, read
from benchmarks.studies.tables.markdown import of_each_machine, percent, pictures, table, titled


def training() -> str:
    """The table of each machine, and the curves."""
    return "\n".join((of_each_machine("training", steps), pictures("training")))


def steps(where: str, document: Document) -> str:
    columns = ["dtype", "loss", "blocks computed again", "processor seconds a step", "speed"]
    columns += ["peak memory", "of the original's", "memory of a step", "of the original's"]
    measured = {(row["dtype"], row["contender"]): row for row in document["rows"]}
    rows = []
    for (dtype, contender), row in measured.items():
        base = measured[dtype, "original"]
        whose, _, blocks = contender.partition(", ")
        speed = base["seconds_median"] / row["seconds_median"]
        cells = [dtype, whose, blocks.removesuffix(" again") or "none"]
        cells += [f"{row['seconds_median']:.1f}", f"{speed:.2f}x"]
        for name in ("peak_mb", "step_mb"):
            cells += [f"{row[name] / 1000:.2f} GB", f"{row[name] / base[name]:.2f}"]
        rows.append(cells)
    title = f"{where}, MAR-B at batch {document['batch']}, one thread"
    return titled(title, table(columns, rows))


def vowels() -> str:
    """What is generated beside what is real."""
    if not (document := read("vowels")):
        return ""
    [row] = document["rows"]
    cells = [
        [
            "accuracy of the classifier",
            percent(row["accuracy"], 1),
            f"{percent(row['real_test_accuracy'], 1)} (test)",
        ],
        [
            "Fréchet distance of 270 utterances to the 370 of the test",
            f"{row['frechet_distance']:.2f}",
            f"{row['real_frechet_distance']:.2f} (training)",
        ],
        [
            "mean distance to the nearest training utterance",
            f"{row['nearest_training_utterance']:.2f}",
            f"{row['real_test_nearest_training_utterance']:.2f} (test)",
        ],
    ]
    minutes = row["training_cpu_seconds"] / 60
    title = (
        f"{row['parameters'] / 1e6:.1f} M parameters, {row['steps']:,} steps, "
        f"{minutes:.0f} minutes of one {document['machine']['processor']} core (`vowels.json`)"
    )
    image = "![Real and generated utterances of three speakers](images/vowels.png)\n"
    return titled(title, f"{table(['', 'generated', 'real'], cells)}\n{image}")


def kills() -> str:
    """How a run ended that was killed again and again."""
    if not (document := read("kills")):
        return ""
    rows = document["rows"]
    cut = sum(bool(row["cut_while_writing"]) for row in rows)
    end = "the same bits" if document["bit_equal"] else "OTHER BITS"
    return (
        f"Killed {len(rows)} times (`kills.json`), {cut} of them while a checkpoint was being\n"
        f"written: every file whole each time, and after {document['steps']} steps {end}\n"
        "as the run without an end.\n"
    )
