"""Bits: are two tensors, or two results of a case, the same, and how far apart are they?"""

from typing import Any

import torch
from torch import Tensor

from marfast.verifying.case import Result

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: Tensor) -> Tensor:
    """As integers of the same size."""
    return x.detach().contiguous().view(_INTEGERS[x.element_size()])


def bit_equal(a: Tensor, b: Tensor) -> bool:
    """Same type, same shape, same bits (so 0.0 is not −0.0, and a NaN equals itself)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(bits(a), bits(b))


def bit_equal_share(a: Tensor, b: Tensor) -> float:
    """The share of floats whose bits are equal."""
    return float((bits(a) == bits(b)).double().mean())


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """How many floats of their type apart, element by element, through zero and up to infinity."""

    def place(x: Tensor) -> Tensor:
        raw = bits(x).long()
        magnitude = raw & (2 ** (8 * x.element_size() - 1) - 1)
        return torch.where(raw < 0, -magnitude, magnitude)

    return (place(a) - place(b)).abs()


def to_double(value: Any) -> Any:
    """Floats as float64, also those inside lists and tuples; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return getattr(value, "_make", type(value))(map(to_double, value))
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return value


def _describe(ours: Tensor, theirs: Tensor) -> tuple[str, float | None]:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        kinds = (f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" for x in (ours, theirs))
        return "{} against {}".format(*kinds), None
    apart = (ours.double() - theirs.double()).abs()
    largest = float(apart.max())
    return f"{int((apart != 0).sum())} of {apart.numel()} numbers, largest {largest:.3g}", largest


def difference(ours: Result, theirs: Result) -> tuple[str, float | None] | None:
    """None where the results are the same bits, else what differs and the largest difference.

    A result that isn't finite proves nothing and counts as a difference.
    """
    if "error" in ours or "error" in theirs:
        sides = (("reference", ours), ("original", theirs))
        return "; ".join(f"the {who} raised {r['error']}" for who, r in sides if "error" in r), None
    if ours.keys() != theirs.keys():
        return f"only one side has {', '.join(sorted(ours.keys() ^ theirs.keys()))}", None
    found: list[str] = []
    largest: float | None = None
    for item, value in ours.items():
        other: Any = theirs[item]
        if not isinstance(value, Tensor) or not isinstance(other, Tensor):
            if value != other:
                found.append(f"{item}: {value!r} against {other!r}")
        elif not bit_equal(value, other):
            detail, apart = _describe(value, other)
            found.append(f"{item}: {detail}")
            largest = max(largest or 0.0, apart) if apart is not None else largest
        elif value.is_floating_point() and not value.isfinite().all():
            found.append(f"{item}: not finite")
    if not found:
        return None
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return found[0] + more, largest
