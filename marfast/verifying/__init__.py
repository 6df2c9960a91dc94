"""`marfast.verify`: is what marfast computes what MAR means? Gathers the answer; cli/ prints it."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from marfast.errors import ArgumentError
from marfast.verifying.report import ApproximationRow, Difference, OpRow, Report, Row

__all__ = ["ApproximationRow", "Difference", "OpRow", "Report", "Row", "verify"]


@contextmanager
def _process_untouched(threads: int | None) -> Iterator[None]:
    """Run with so many threads; leave thread count and generator states as they were."""
    import numpy as np

    before, state = torch.get_num_threads(), np.random.get_state()
    torch.set_num_threads(threads or before)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
        np.random.set_state(state)


def verify(
    original: str | Path | None = None,
    *,
    approximations: bool = False,
    only: Collection[str] | None = None,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Check this machine's marfast: against the original with `original`, else op by op.

    With `original`, the path of a checkout of LTH14/mar: compare the reference with it, bit for
    bit. The original runs in a subprocess, with `.cuda()` doing nothing and torchvision stubbed;
    this process is not patched. Without: compare every backend of every op with its baseline and
    with float64.

    Args:
        original: a checkout of LTH14/mar.
        only: rows of the comparison with the original, by their `what`; default all.
        threads: of each of the two processes that are compared.
        progress: called as progress(what, done, total).

    Raises:
        ValueError: before any work, if the original can't be run here; one line says why.
    """
    if approximations and original is not None:
        raise ArgumentError("approximations", True, "allowed without `original` only")
    report = progress or (lambda what, done, total: None)
    start = time.perf_counter()
    versions = {"torch": str(torch.__version__)}
    if approximations:
        from marfast.verifying import approximations as table

        with _process_untouched(None):
            found = table.rows(report)
        seconds = time.perf_counter() - start
        return Report(approximations=found, versions=versions, seconds=seconds)
    if original is None:
        from marfast.verifying import op_table

        with _process_untouched(None):
            ops = op_table.rows(report)
        return Report(ops=ops, versions=versions, seconds=time.perf_counter() - start)

    from marfast.verifying import against_original
    from marfast.verifying import original as checkout

    root = checkout.require_checkout(original)
    checkout.require_packages()
    with _process_untouched(threads):
        rows = against_original.rows(root, only, threads, report)
    return Report(
        rows=rows,
        original=str(root),
        commit=checkout.commit(root),
        versions=versions | {"timm": checkout.TIMM},
        seconds=time.perf_counter() - start,
    )
