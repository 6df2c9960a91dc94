"""Many images, on any number of machines, and what they are worth: sample, evaluate, curve."""

from marfast.evaluation.evaluating import Court, Evaluation, evaluate
from marfast.evaluation.protocols import PROTOCOLS, Protocol, protocol_of
from marfast.evaluation.run import Run, read_run
from marfast.evaluation.sampling import Made, Stored, sample
from marfast.evaluation.work import Place

__all__ = [
    "PROTOCOLS",
    "Court",
    "Evaluation",
    "Made",
    "Place",
    "Protocol",
    "Run",
    "Stored",
    "evaluate",
    "protocol_of",
    "read_run",
    "sample",
]
