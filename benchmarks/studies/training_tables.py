"""The figures of docs/training.md: `tables.py` writes them into the page."""

import json
from typing import Any

from benchmarks.studies import RESULTS


def _read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def vowels() -> str:
    """What is generated beside what is real."""
    if (document := _read("vowels")) is None:
        return ""
    [row] = document["rows"]
    cells = {
        "accuracy of the classifier": (
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['real_test_accuracy']:.1f} % (test)",
        ),
        "Fréchet distance of 270 utterances to the 370 of the test": (
            f"{row['frechet_distance']:.2f}",
            f"{row['real_frechet_distance']:.2f} (training)",
        ),
        "mean distance to the nearest training utterance": (
            f"{row['nearest_training_utterance']:.2f}",
            f"{row['real_test_nearest_training_utterance']:.2f} (test)",
        ),
    }
    lines = "".join(f"| {name} | {made} | {own} |\n" for name, (made, own) in cells.items())
    minutes = row["training_cpu_seconds"] / 60
    return (
        f"{row['parameters'] / 1e6:.1f} M parameters, {row['steps']:,} steps, "
        f"{minutes:.0f} minutes of one {document['machine']['processor']} core (`vowels.json`):\n\n"
        f"| | generated | real |\n| --- | --- | --- |\n{lines}\n"
        "![Real and generated utterances of three speakers](images/vowels.png)\n"
    )


def kills() -> str:
    """How a run ended that was killed again and again."""
    if (document := _read("kills")) is None:
        return ""
    rows = document["rows"]
    cut = sum(bool(row["cut_while_writing"]) for row in rows)
    end = "the same bits" if document["bit_equal"] else "OTHER BITS"
    return (
        f"Killed {len(rows)} times (`kills.json`), {cut} of them while a checkpoint was being\n"
        f"written: every file whole each time, and after {document['steps']} steps {end}\n"
        "as the run without an end.\n"
    )
