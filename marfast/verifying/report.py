"""What `marfast.verify` found, as plain data."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A case that isn't bit-equal: what differs, and the largest absolute difference, if any."""

    case: str
    detail: str
    largest: float | None


@dataclass(frozen=True)
class Row:
    """What was compared with the original, in how many cases, and how many had equal bits."""

    what: str
    cases: int
    bit_equal: int
    differences: tuple[Difference, ...] = ()

    @property
    def ok(self) -> bool:
        return self.bit_equal == self.cases


@dataclass(frozen=True)
class OpRow:
    """One op on one backend (and instruction set), over several draws of one of its examples.

    `bit_equal` (a share) and `max_ulp` are against `compared_with`: the portable build for the
    other CPU builds, else the reference. Errors are against float64, relative to its RMS; `eager_…`
    are those of the reference in the same dtype. `reason` says why the backend did not run; then
    there are no figures.
    """

    op: str
    backend: str
    isa: str | None
    device: str
    dtype: str
    reason: str | None = None
    compared_with: str | None = None
    bit_equal: float | None = None
    max_ulp: int | None = None
    error_max: float | None = None
    error_rms: float | None = None
    eager_max: float | None = None
    eager_rms: float | None = None
    ok: bool = True
    example: str = ""
    """Which of the op's examples; empty for the first one."""


@dataclass(frozen=True)
class ApproximationRow:
    """Images by an approximation beside those of the same labels and seeds by what it stands for.

    `rms` and `largest` are of the difference of pixels, which lie in [−1, 1]; `accuracy` is the
    share of its images that the embedded classifier sees as asked.
    """

    name: str
    images: int
    rms: float
    largest: float
    accuracy: float


@dataclass(frozen=True)
class Report:
    """`rows` are what was compared with the original, `ops` the table of ops, `approximations` that
    of approximations; one of them is there.

    `commit` is the original's, None where its code has been changed.
    """

    rows: tuple[Row, ...] = ()
    ops: tuple[OpRow, ...] = ()
    approximations: tuple[ApproximationRow, ...] = ()
    original: str | None = None
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows) and all(row.ok for row in self.ops)

    @property
    def cases(self) -> int:
        """How many cases were compared with the original."""
        return sum(row.cases for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can say it."""
        report = asdict(self) | {"ok": self.ok, "cases": self.cases}
        for found, row in zip(report["rows"], self.rows, strict=True):
            found["ok"] = row.ok
        return report
