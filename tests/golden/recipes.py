"""The cases whose results are kept as golden values: those of `marfast verify --original` that come
out alike on every machine, and a hash of the weights that they run with."""

import hashlib
from functools import partial

from marfast.verifying import cases
from marfast.verifying.case import Case, Implementation, Result
from marfast.verifying.cases.models import VARIANTS, tiny

# cost, size and rounding
LEFT_OUT = ("true widths", "names and shapes", "bf16", "autoencoder, initial weights")
LARGE = ("L=256, 8 values", "L=49, 49 values", "1000 steps", "100 steps, guidance", "KL-16")


def weights(name: str, implementation: Implementation) -> Result:
    digest = hashlib.sha256()
    for parameter, value in tiny(implementation, **VARIANTS[name]).state_dict().items():
        digest.update(parameter.encode() + value.numpy().tobytes())
    return {"sha256": digest.hexdigest()}


def all_cases() -> list[Case]:
    kept = [
        case
        for case in cases.all_cases()
        if not any(part in f"{case.what}, {case.name}" for part in (*LEFT_OUT, *LARGE))
    ]
    return [Case("weights", name, partial(weights, name)) for name in VARIANTS] + kept
