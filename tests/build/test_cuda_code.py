"""What nvcc makes of the GPU's kernels, which needs no GPU: registers, spills, shared memory and
the instructions that matter, against one table of budgets."""

import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest

from tests.build import cuda_code
from tests.build.cuda_code import Code
from tests.emulation import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (cuda_code.nvcc() and shutil.which("c++filt")), reason="no nvcc, or no c++filt"
    ),
]


class Budget(NamedTuple):
    variants: int
    registers: int  # of a thread, the most
    shared: int  # dynamic, bytes of a block, the most
    needs: tuple[str, ...] = ()  # what instructions must begin with
    fma: int | None = None  # of a thread, exactly: those that the formula writes


TENSOR = ("HMMA.16816.F32", "LDSM.16.M88")
COPIES = ("LDGSTS", "LDGDEPBAR", "DEPBAR")
EXP = 9
"""The FMAs that csrc/include/marfast/exp.h writes."""

# 128 threads a block twice a multiprocessor may have 255 registers each.
BUDGETS = {
    "ddpm_step<*>": Budget(3, 48, 0, fma=EXP),
    "layer_norm_modulate<*>": Budget(9, 48, 0, ("SHFL.BFLY",), fma=0),
    "silu_sum<*>": Budget(3, 32, 0, fma=EXP),
    "linear_epilogue<*>": Budget(4, 32, 0),
    "ddpm_sample<float, true>": Budget(1, 255, 227 << 10, ("FFMA", "LDS.128", *COPIES)),
    "ddpm_sample<*float16, true>": Budget(2, 255, 227 << 10, (*TENSOR, *COPIES)),
    "ddpm_sample<*float16, false>": Budget(2, 255, 227 << 10, TENSOR),
    "linear_mma<*, 1, 1, 16>": Budget(2, 200, 18 << 10, (*TENSOR, *COPIES)),
    "linear_mma<*, 1, 1, 2>": Budget(2, 200, 18 << 10, TENSOR),
    "linear_mma<*, 2, 8, 16>": Budget(2, 200, 48 << 10, (*TENSOR, *COPIES)),
    "linear_mma<*, 2, 8, 2>": Budget(2, 200, 48 << 10, TENSOR),
    # three blocks a multiprocessor; two where any head dim is taken
    "attention<float, [68]*, 16>": Budget(2, 168, 48 << 10, ("FFMA", *COPIES)),
    "attention<float, 0, *>": Budget(2, 255, 48 << 10, ("FFMA", *COPIES)),
    "attention<*float16, [68]*, 16>": Budget(4, 168, 48 << 10, (*TENSOR, *COPIES)),
    "attention<*float16, 0, 16>": Budget(2, 255, 48 << 10, (*TENSOR, *COPIES)),
    "attention<*float16, 0, 2>": Budget(2, 255, 48 << 10, TENSOR),
    "linear_fp32<*>": Budget(4, 200, 48 << 10, ("FFMA", *COPIES)),
}


def budget(variant: str) -> Budget:
    found = [budget for pattern, budget in BUDGETS.items() if fnmatchcase(variant, pattern)]
    assert len(found) == 1, f"{variant} has {len(found)} budgets"
    return found[0]


def variants() -> Iterator[tuple[str, str, Code]]:
    for architecture, code in cuda_code.compiled().code.items():
        for variant, made in code.items():
            yield architecture, variant, made


def test_every_variant_has_a_budget_and_is_made_for_every_architecture() -> None:
    made = cuda_code.compiled()
    assert {*cuda_code.SHIPPED} <= {*made.code}
    for names in (made.ptx, *made.code.values()):
        counts = {pattern: sum(fnmatchcase(n, pattern) for n in names) for pattern in BUDGETS}
        assert counts == {pattern: budget.variants for pattern, budget in BUDGETS.items()}
        assert sum(counts.values()) == len(names)


def test_registers_and_no_local_memory() -> None:
    for architecture, variant, code in variants():
        assert code.registers <= budget(variant).registers, (architecture, variant, code.registers)
        assert (code.stack, code.spilled) == (0, 0), (architecture, variant, code)


@pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
def test_shared_memory_is_what_every_architecture_has() -> None:
    launched = cuda_code.launched()
    for architecture, variant, code in variants():
        assert variant in launched, f"{variant} is in none of the emulator's cases"
        threads, dynamic = launched[variant]
        assert dynamic <= budget(variant).shared, (variant, dynamic)
        assert code.shared == 0, (architecture, variant, "is static")
        assert dynamic <= cuda_code.MOST_SHARED[architecture] << 10, (architecture, variant)
        assert code.registers * threads <= 1 << 16, (architecture, variant, "can't be launched")


@pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
def test_every_variant_is_launched_with_the_threads_that_it_is_compiled_for() -> None:
    launched = cuda_code.launched()
    for variant, body in cuda_code.compiled().ptx.items():
        assert re.findall(r"\.maxntid (\d+), 1, 1", body) == [str(launched[variant][0])], variant


@pytest.mark.skipif(cuda_code.cuobjdump() is None, reason="no cuobjdump, on PATH or in triton")
def test_instructions() -> None:
    for architecture, variant, code in variants():
        where, found = (architecture, variant), code.instructions
        assert "EXIT" in found, where
        missing = [
            name for name in budget(variant).needs if not any(f.startswith(name) for f in found)
        ]
        assert missing == [], where
        local = [name for name in found if name.startswith(("STL", "LDL"))]
        # Double precision, or products that TF32 rounds.
        slow = [name for name in found if re.match(r"D(FMA|ADD|MUL)|.*TF32", name)]
        assert (local, slow) == ([], []), where
        # Division and square root are made of FFMAs, too.
        if not re.search(r"(div|rcp|sqrt)\.rn", cuda_code.compiled().ptx[variant]):
            fused = sum(n for name, n in found.items() if name.startswith("FFMA"))
            assert budget(variant).fma in (None, fused), (where, fused)


def test_the_ptx_rounds_as_numerics_says() -> None:
    for variant, body in cuda_code.compiled().ptx.items():
        if variant.startswith("attention") and "float16" in variant:  # the powers of its softmax
            body = body.replace("ex2.approx.ftz.f32", "")
        assert not re.search(r"\.ftz|\.approx|\bmad\.f32|\.f64", body), variant
        fused = len(re.findall(r"fma\.rn\.f32", body))
        assert budget(variant).fma in (None, fused), (variant, fused)
