"""What may include what, and what several files must agree on."""

import re
import subprocess
import sys
from pathlib import Path

import marfast

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp"))


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"](.+?)[>"]', path.read_text(), re.MULTILINE)


def test_csrc_knows_no_torch_and_only_the_bindings_know_python():
    assert len(SOURCES) > 10
    for path in SOURCES:
        for include in includes(path):
            assert not re.match(r"torch/|ATen/|c10/", include), path
            if path.parent.name != "bindings":
                assert not re.match(r"pybind11/|Python\.h", include), path


def test_isa_files_share_no_code_that_is_not_in_an_unnamed_namespace():
    """They are compiled with different flags: the linker would merge standard templates and named
    inline functions, and an old CPU could get the wrong copy."""
    allowed = {"cstdint", "cstring", "immintrin.h", "float.h", "math.h", "string.h"}
    seen: set[str] = set()
    queue = ["portable.cpp", "avx2.cpp", "avx512.cpp", "avx512_bf16.cpp", "avx512_amx.cpp"]
    files = {path.name: path for path in SOURCES}
    while queue:
        name = queue.pop()
        seen.add(name)
        for include in includes(files[name]):
            local = include.split("/")[-1]
            if local in files:
                if local not in seen:
                    queue.append(local)
            else:
                assert include in allowed, f"{name} includes {include}"
    assert {"vec_avx2.h", "kernels.h", "exp.h"} <= seen
    for name in (n for n in seen if n.startswith("vec_")):
        assert re.search(r"^namespace \{$", files[name].read_text(), re.MULTILINE), name


def test_importing_marfast_touches_no_device_and_no_native_code():
    code = """
import sys, torch
import marfast
assert "marfast._cpu" not in sys.modules
assert not torch.cuda.is_initialized()
late = {"triton", "scipy", "timm", "matplotlib"} & {name.split(".")[0] for name in sys.modules}
assert not late, late
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages():
    text = (ROOT / "marfast" / "_version.py").read_text()
    assert text == f'__version__ = "{marfast.__version__}"\n'
    assert f"## {marfast.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_torch_is_one_that_reads_pickles_safely():
    """weights_only runs code up to 2.5.1 (CVE-2025-32434)."""
    floor = re.search(r'"torch>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert floor is not None
    assert tuple(map(int, floor.groups())) >= (2, 6)


def test_make_never_asks_an_index_for_this_package():
    makefile = (ROOT / "Makefile").read_text()
    assert not re.search(r"\$\(PIP\).*marfast", makefile)
    assert "--editable '.[dev,docs,train]'" in makefile
