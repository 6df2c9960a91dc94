"""One binary for any x86-64: which instruction set is chosen, and how to force a lower one."""

import os
import subprocess
import sys
from typing import Any

import pytest

from marfast.ops import native

pytestmark = pytest.mark.usefixtures("needs_native")

NAMES = ["avx512_amx", "avx512_bf16", "avx512", "avx2", "portable"]


@pytest.fixture
def extension() -> Any:
    return native.extension()


def test_the_best_usable_one_is_chosen(extension):
    avx2, avx512, bf16 = extension.AVX2, extension.AVX512, extension.AVX512_BF16
    amx = extension.AMX_BF16
    assert extension.select_isa(0, "") == "portable"
    if "avx2" in extension.isas():
        assert extension.select_isa(avx2, "") == "avx2"
        assert extension.select_isa(avx512 | bf16, "") == "portable", "AVX-512 alone is not enough"
    if "avx512_amx" in extension.isas():
        assert extension.select_isa(avx2 | avx512 | amx, "") == "avx512_amx"
    if "avx512_bf16" in extension.isas():
        assert extension.select_isa(avx2 | avx512, "") == "avx512"
        assert extension.select_isa(avx2 | avx512 | bf16, "") == "avx512_bf16"


def test_the_list_is_best_first_and_ends_with_portable(extension):
    usable = extension.isas()
    assert usable == [name for name in NAMES if name in usable]
    assert usable[-1] == "portable"


def test_a_lower_one_can_be_forced(extension):
    everything = ~0 & 0xFFFFFFFF
    for name in extension.isas():
        assert extension.select_isa(everything, name) == name


def test_an_unknown_or_missing_one_is_an_error_with_the_usable_names(extension):
    with pytest.raises(ValueError, match=r"'avx1024' is unknown; usable: portable$"):
        extension.select_isa(0, "avx1024")
    with pytest.raises(ValueError, match=r"'avx512' is not available here; usable: .*portable$"):
        extension.select_isa(extension.AVX2, "avx512")
    before = extension.isa()
    with pytest.raises(ValueError, match="unknown"), native.cpu_isa("sse9"):
        pass
    assert extension.isa() == before


def test_the_context_manager_restores_the_one_before(extension):
    before = extension.isa()
    with native.cpu_isa("portable"):
        assert extension.isa() == "portable"
    assert extension.isa() == before
    with pytest.raises(KeyError), native.cpu_isa("portable"):
        raise KeyError
    assert extension.isa() == before


def run(isa: str) -> subprocess.CompletedProcess[str]:
    code = "from marfast.ops import native; print(native.extension().isa())"
    environment = {**os.environ, "MARFAST_CPU_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )


def test_the_environment_forces_one():
    assert run("portable").stdout == "portable\n"
    failed = run("mmx")
    assert failed.returncode == 1
    said = "ArgumentError: MARFAST_CPU_ISA: instruction set 'mmx' is unknown; usable: "
    assert said in failed.stderr


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="needs /proc/cpuinfo")
def test_detection_agrees_with_the_operating_system(extension):
    with open("/proc/cpuinfo") as file:
        line = next((line for line in file if line.startswith("flags")), "")
    flags = set(line.split())
    features = extension.cpu_features()
    expected = {
        extension.AVX2: {"avx2", "fma", "f16c"},
        extension.AVX512: {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        extension.AVX512_BF16: {"avx512_bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    }
    for feature, needed in expected.items():
        assert bool(features & feature) == (needed <= flags)
    if features & extension.AMX_BF16:  # the operating system may refuse the tiles
        assert {"amx_tile", "amx_bf16"} <= flags
