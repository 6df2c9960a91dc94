"""The table of ops: op × backend × instruction set × dtype, bits and error against float64."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marfast.ops import native, registry

from .compare import bit_equal_share, max_ulp
from .report import OpRow

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SEEDS = range(8)
PORTABLE = "portable"
ALLOWED_MAX, ALLOWED_RMS = 4, 2  # times eager's own error against float64


@dataclass(frozen=True)
class _Variant:
    """A backend, and for the CPU's kernels an instruction set."""

    backend: str
    isa: str | None = None

    def forced(self) -> AbstractContextManager[Any]:
        return native.cpu_isa(self.isa) if self.isa else nullcontext()

    def run(self, op: registry.Op, args: tuple[Any, ...]) -> Tensor:
        with registry.backend(self.backend), self.forced(), torch.no_grad():
            return op(*args)


def _variants(op: registry.Op) -> Iterator[_Variant]:
    for backend in registry.ORDER:
        if backend not in op.backends or backend == "reference":
            continue
        isas = native.extension().isas() if backend == "cpu" and native.available()[0] else [None]
        yield from (_Variant(backend, isa) for isa in isas)


def _example(op: registry.Op, dtype: torch.dtype, device: str, seed: int) -> tuple[Any, ...]:
    return op.fill(op.example(dtype, torch.device(device), torch.Generator().manual_seed(seed)))


def _exact(op: registry.Op, args: tuple[Any, ...]) -> Tensor:
    doubles = (a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
    with torch.no_grad():
        return op.reference(*doubles)


def _errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest and the RMS error, relative to the RMS of what is exact."""
    apart = (found.double() - exact).abs() / exact.square().mean().sqrt()
    return float(apart.max()), float(apart.square().mean().sqrt())


def _row(op: registry.Op, variant: _Variant, device: str, dtype: torch.dtype) -> OpRow:
    named = (op.name, variant.backend, variant.isa, device, str(dtype).removeprefix("torch."))
    can_run, reason = op.backends[variant.backend].can_run(*_example(op, dtype, device, 0))
    if not can_run:
        return OpRow(*named, reason=reason)
    portable = variant.isa is not None and variant.isa != PORTABLE
    baseline = _Variant("cpu", PORTABLE) if portable else _Variant("reference")
    found, base, eager, exact = [], [], [], []
    for seed in SEEDS:
        args = _example(op, dtype, device, seed)
        found.append(variant.run(op, args))
        base.append(baseline.run(op, args))
        eager.append(_Variant("reference").run(op, args))
        exact.append(_exact(op, args))
    ours, theirs, plain, truth = (torch.stack(x) for x in (found, base, eager, exact))
    error_max, error_rms = _errors(ours, truth)
    eager_max, eager_rms = _errors(plain, truth)
    share = bit_equal_share(ours, theirs)
    accurate = error_max <= ALLOWED_MAX * eager_max and error_rms <= ALLOWED_RMS * eager_rms
    return OpRow(
        *named,
        compared_with=PORTABLE if portable else "reference",
        bit_equal=share,
        max_ulp=max_ulp(ours, theirs),
        error_max=error_max,
        error_rms=error_rms,
        eager_max=eager_max,
        eager_rms=eager_rms,
        ok=accurate and (share == 1 or not portable or dtype != torch.float32),
    )


def rows(progress: Callable[[str, int, int], None]) -> tuple[OpRow, ...]:
    """A row for each op, backend, instruction set, device and dtype there is here."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    jobs = [
        (op, variant, device, dtype)
        for op in registry.OPS.values()
        for device in devices
        for variant in _variants(op)
        for dtype in DTYPES
    ]
    table = []
    for done, job in enumerate(jobs):
        progress(job[0].name, done, len(jobs))
        table.append(_row(*job))
    return tuple(table)
