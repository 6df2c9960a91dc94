"""The table of ops: op × backend × instruction set × dtype, bits and error against float64."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor

from marfast.ops import choice
from marfast.ops.op import OPS, Op
from marfast.ops.runtime import cpu
from marfast.verifying.compare import bit_equal_share, to_double, ulp_distance
from marfast.verifying.report import OpRow

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SEEDS = range(8)
PORTABLE = "portable"
OWN_PRODUCTS = ("avx512_bf16", "avx512_amx")
"""Instruction sets that multiply bfloat16 by an instruction whose bits are its own."""
ALLOWED_MAX, ALLOWED_RMS = 4, 2  # times eager's own error against float64


@dataclass(frozen=True)
class _Variant:
    """A backend, and for the CPU's kernels an instruction set."""

    backend: Any
    isa: str | None = None

    def forced(self) -> AbstractContextManager[Any]:
        return cpu.cpu_isa(self.isa) if self.isa else nullcontext()

    def run(self, op: Op[Any], args: tuple[Any, ...]) -> Tensor:
        with choice.backend(self.backend), self.forced(), torch.no_grad():
            return op(*args)


def _variants(op: Op[Any]) -> Iterator[_Variant]:
    for backend in choice.ORDER:
        if backend not in op.backends or backend == "reference":
            continue
        compiled = backend == "cpu" and cpu.is_built()[0]
        isas = cpu.extension().isas() if compiled else [None]
        yield from (_Variant(backend, isa) for isa in isas)


class _Subject:
    """One of an op's examples in one dtype on one device, over several seeds; what they give is
    computed once."""

    def __init__(self, op: Op[Any], example: str, device: str, dtype: torch.dtype) -> None:
        self.op, self.example, self.device, self.dtype = op, example, device, dtype
        self._results: dict[_Variant, Tensor] = {}

    @cached_property
    def examples(self) -> list[tuple[Any, ...]]:
        example = self.op.examples[self.example]
        return [self.op.example_args(self.dtype, self.device, seed, example) for seed in SEEDS]

    @cached_property
    def exact(self) -> Tensor:
        with torch.no_grad():
            return torch.stack([self.op.plain(*to_double(args)) for args in self.examples])

    def results(self, variant: _Variant) -> Tensor:
        if variant not in self._results:
            results = [variant.run(self.op, args) for args in self.examples]
            self._results[variant] = torch.stack(results)
        return self._results[variant]


def _errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest and the RMS error, relative to the RMS of what is exact."""
    apart = (found.double() - exact).abs() / exact.square().mean().sqrt()
    return float(apart.max()), float(apart.square().mean().sqrt())


def _row(subject: _Subject, variant: _Variant) -> OpRow:
    op, dtype = subject.op, subject.dtype
    row = OpRow(
        op=op.name,
        example=subject.example,
        backend=variant.backend,
        isa=variant.isa,
        device=subject.device,
        dtype=str(dtype).removeprefix("torch."),
    )
    can_run, reason = op.backends[variant.backend].can_run(subject.examples[0])
    if not can_run:
        return replace(row, reason=reason)
    portable = variant.isa is not None and variant.isa != PORTABLE
    baseline = _Variant("cpu", PORTABLE) if portable else _Variant("reference")
    ours, theirs = subject.results(variant), subject.results(baseline)
    plain, truth = subject.results(_Variant("reference")), subject.exact
    error_max, error_rms = _errors(ours, truth)
    eager_max, eager_rms = _errors(plain, truth)
    share = bit_equal_share(ours, theirs)
    own_bits = variant.isa in OWN_PRODUCTS and dtype == torch.bfloat16
    accurate = error_max <= ALLOWED_MAX * eager_max and error_rms <= ALLOWED_RMS * eager_rms
    return replace(
        row,
        compared_with=PORTABLE if portable else "reference",
        bit_equal=share,
        max_ulp=int(ulp_distance(ours, theirs).max()),
        error_max=error_max,
        error_rms=error_rms,
        eager_max=eager_max,
        eager_rms=eager_rms,
        ok=accurate and (share == 1 or not portable or own_bits),
    )


def rows(progress: Callable[[str, int, int], None]) -> tuple[OpRow, ...]:
    """A row for each op's example, backend, instruction set, device and dtype there is here."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    jobs = []
    for op, device in product(OPS.values(), devices):
        for example in op.examples:
            subjects = [_Subject(op, example, device, dtype) for dtype in DTYPES]
            jobs += [(subject, variant) for variant in _variants(op) for subject in subjects]
    table = []
    for done, (subject, variant) in enumerate(jobs):
        progress(subject.op.name, done, len(jobs))
        table.append(_row(subject, variant))
    return tuple(table)
