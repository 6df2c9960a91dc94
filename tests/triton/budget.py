"""What a compiled kernel may take; one table for every kernel and target."""

from typing import Any

from .ahead import TARGETS, resources

REGISTERS = {"sm_80": 255, "sm_90": 255, "sm_100": 255, "gfx942": 512}
"""A thread's registers: what the part can name."""

SPILLS = 0
"""Bytes of memory that a thread may use for registers it lacks."""

SHARED = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "gfx942": 64}
"""KB that one program may have: the part's limit."""

THREADS_REGISTERS = 65536
"""Registers of a multiprocessor: a program must fit."""


def over_budget(kernel: Any, target: str) -> str:
    """What a kernel has too much of; empty if it keeps within the budget."""
    used = resources(kernel, TARGETS[target])
    if used.registers > REGISTERS[target]:
        return f"{used.registers} registers; allowed are {REGISTERS[target]}"
    if used.spills > SPILLS:
        return f"{used.spills} bytes of spills; allowed are {SPILLS}"
    if used.shared > SHARED[target] * 1024:
        return f"{used.shared} bytes of shared memory; allowed are {SHARED[target]} KB"
    threads = kernel.metadata.num_warps * TARGETS[target].warp_size
    if target != "gfx942" and used.registers * threads > THREADS_REGISTERS:
        return f"{used.registers} registers of {threads} threads; a multiprocessor has 65536"
    return ""
