"""What nvcc makes of the GPU's kernels, which needs no GPU: registers, spills and the instructions
that matter, against one table of budgets."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.build.tree import ROOT

NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="no nvcc")
FLAGS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")

# The most registers of a thread, by kernel. 128 threads a block twice a multiprocessor: 256.
REGISTERS = {
    "ddpm_step": 48,
    "layer_norm_modulate": 48,
    "silu_sum": 32,
    "linear_mma": 200,
    "linear_fp32": 200,
    "attention": 168,  # three times a multiprocessor
}
VARIANTS = {
    "ddpm_step": 3,
    "layer_norm_modulate": 7,
    "silu_sum": 3,
    "linear_mma": 8,
    "linear_fp32": 4,
    "attention": 12,
}
ARCHITECTURES = ["sm_80", "sm_90"]


def compile_kernels(*flags: str) -> subprocess.CompletedProcess[str]:
    includes = (f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}")
    source = ROOT / "csrc" / "cuda" / "kernels.cu"
    command = [str(NVCC), *FLAGS, *includes, *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def base(symbol: str) -> str:
    names = [name for name in REGISTERS if re.search(rf"\d{name}(?=[IE])", symbol)]
    assert len(names) == 1, symbol
    return names[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_and_spills(architecture: str, tmp_path: Path) -> None:
    done = compile_kernels(
        f"-arch={architecture}", "-Xptxas", "-v", "-cubin", "-o", str(tmp_path / "kernels.cubin")
    )
    report = re.findall(
        r"Function properties for (\S+)\s+"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+"
        r"ptxas info\s+: Used (\d+) registers([^\n]*)",
        done.stderr,
    )
    counts = dict.fromkeys(VARIANTS, 0)
    for symbol, stack, stores, loads, registers, rest in report:
        name = base(symbol)
        counts[name] += 1
        assert (stack, stores, loads) == ("0", "0", "0"), (symbol, stack, stores, loads)
        assert int(registers) <= REGISTERS[name], (symbol, registers)
        assert "smem" not in rest, f"{symbol} has static shared memory: {rest}"
    assert counts == VARIANTS


def test_instructions(tmp_path: Path) -> None:
    ptx = tmp_path / "kernels.ptx"
    compile_kernels("-arch=sm_80", "-ptx", "-o", str(ptx))
    bodies = re.findall(r"\.entry (\w+)\((.*?)\n}", ptx.read_text(), re.DOTALL)
    counts = dict.fromkeys(VARIANTS, 0)
    for symbol, body in bodies:
        name = base(symbol)
        counts[name] += 1
        products = name == "linear_mma" or (name == "attention" and "float16" in symbol)
        if name == "attention" and products:  # the powers of its softmax
            body = body.replace("ex2.approx.ftz.f32", "")
        # What would break the order or the rounding of docs/numerics.md.
        assert not re.search(r"\.ftz|\.approx|\bmad\.f32|\.f64", body), symbol
        assert ("mma.sync" in body) == products, symbol
        if products:
            assert "mma.sync.aligned.m16n8k16" in body
            assert "ldmatrix" in body
        elif name in ("linear_fp32", "attention"):
            assert "fma.rn.f32" in body
            assert "cp.async" in body
    assert counts == VARIANTS
