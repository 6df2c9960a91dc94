"""The wheel: what is in it, with a compiler and without one, and that it works elsewhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.build.tree import BUILD_INPUTS, ROOT, copy_repository

pytestmark = pytest.mark.slow


def build_wheel(tree: Path, **environment: str) -> tuple[Path | None, str]:
    """The wheel (None if the build failed), and the build log."""
    command = (
        *(sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps"),
        *("--no-index", "--wheel-dir", str(tree / "wheels"), str(tree)),
    )
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    wheels = list((tree / "wheels").glob("*.whl"))
    return (wheels[0] if result.returncode == 0 else None), result.stdout + result.stderr


def unpacked(wheel: Path, target: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(package: Path, code: str) -> subprocess.CompletedProcess[str]:
    """`code` beside the unpacked package, without the finder of an editable installation."""
    alone = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f.__module__]\n"
    )
    return subprocess.run(
        [sys.executable, "-c", alone + code],
        cwd=package,
        capture_output=True,
        text=True,
    )


SHOW = """
import pathlib, marfast
from marfast import ops
from marfast.ops.runtime import cpu
assert pathlib.Path(marfast.__file__).is_relative_to(pathlib.Path.cwd()), marfast.__file__
import torch
x = torch.ones(2, 3)
ops.layer_norm_modulate(x, x, x)
ops.layer_norm_modulate(x, x, x)
print(cpu.describe())
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_the_wheel_has_the_extension_and_the_assets(tmp_path):
    tree = copy_repository(tmp_path / "tree", *BUILD_INPUTS)
    wheel, log = build_wheel(tree, MARFAST_BUILD_NATIVE="1", MARFAST_BUILD_CUDA="0", MAX_JOBS="2")
    assert wheel is not None, log
    package = unpacked(wheel, tmp_path / "package")
    names = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}

    def in_package(folder: str) -> set[str]:
        files = [p for p in (ROOT / folder).rglob("*") if p.is_file()]
        return {str(p.relative_to(ROOT)) for p in files if p.suffix not in (".so", ".pyc")}

    extension = {name for name in names if name.startswith("marfast/_cpu")}
    assert len(extension) == 1
    inside = {name for name in names if name.startswith("marfast/")}
    assert inside - extension == in_package("marfast")
    assert "marfast/py.typed" in inside
    assert any(name.endswith(".safetensors") for name in inside)

    shown = run(package, SHOW)
    assert shown.stdout.startswith("native kernels: "), shown.stderr
    assert "RuntimeWarning" not in shown.stderr


def test_without_a_compiler_the_package_still_installs(tmp_path):
    tree = copy_repository(tmp_path / "tree", *BUILD_INPUTS)
    missing = str(tmp_path / "no-such-compiler")
    wheel, log = build_wheel(tree, CXX=missing)
    assert wheel is not None, log
    assert "marfast is without native kernels: cmake failed" in log
    assert missing in log, "the log must say why"
    package = unpacked(wheel, tmp_path / "package")
    assert not list(package.glob("marfast/_cpu*"))

    shown = run(package, SHOW)
    assert shown.stdout.startswith("no native kernels, everything runs in plain PyTorch: ")
    assert shown.stderr.count("RuntimeWarning: marfast runs in plain PyTorch") == 1


def test_the_switches_of_the_build(tmp_path):
    tree = copy_repository(tmp_path / "tree", *BUILD_INPUTS)
    missing = str(tmp_path / "no-such-compiler")
    wheel, log = build_wheel(tree, MARFAST_BUILD_NATIVE="1", CXX=missing)
    assert wheel is None
    assert "error: marfast is without native kernels: cmake failed" in log
    wheel, log = build_wheel(tree, MARFAST_BUILD_NATIVE="yes")
    assert wheel is None
    assert "MARFAST_BUILD_NATIVE='yes'; allowed: auto, 0, 1" in log
    for jobs in ("x", "0", "-1", "1.5"):
        wheel, log = build_wheel(tree, MARFAST_BUILD_NATIVE="0", MAX_JOBS=jobs)
        assert wheel is None
        assert f"MAX_JOBS={jobs!r}; allowed: whole numbers from 1" in log
    wheel, log = build_wheel(tree, MARFAST_BUILD_NATIVE="0", CXX=missing)
    assert wheel is not None, log
    assert wheel.name.endswith("py3-none-any.whl")
