"""All that the reference must share with the original, bit for bit."""

from marfast.verifying.case import Case
from marfast.verifying.cases import autoencoder, exact, head, sampling, sizes, training, transformer


def all_cases() -> list[Case]:
    """Every case, in the order of the table. The same list in every process."""
    parts = (exact, head, transformer, sampling, training, sizes, autoencoder)
    return [case for part in parts for case in part.cases()]
