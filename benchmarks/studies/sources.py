"""What studies have measured: the results on disk, and the machines that they are of."""

from collections.abc import Iterator
from typing import Any

from benchmarks.studies import RESULTS
from marfast.bench.results import Row, read_document

Document = dict[str, Any]

MACHINES = {
    "avx512_amx": "Two Intel Xeon cores with AMX",
    "avx512_bf16": "Two AMD EPYC cores with AVX-512 BF16",
    "avx2": "Two AMD EPYC cores with AVX2 alone",
}
"""By the instruction set that results are named by."""
UNITS = {"step": "a step", "sample": "a sample", "batch": "a batch", "image": "an image"}


def read(name: str) -> Document:
    """Results that were written; empty where there are none."""
    return read_document(RESULTS / f"{name}.json")


def by_machine(name: str) -> Iterator[tuple[str, Document]]:
    """Of each machine that has such results: its instruction set, and they."""
    for isa in MACHINES:
        if document := read(f"{name}-{isa}"):
            yield isa, document


def transformers(row: Row) -> float:
    """Seconds of encoder and decoder."""
    seconds = (row["phases"].get(phase, 0.0) for phase in ("transformers", "encoder", "decoder"))
    return float(sum(seconds))
