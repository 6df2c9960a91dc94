"""The source distribution: everything that building and testing it needs."""

import subprocess
import sys
import tarfile

from tests.build.tree import BUILD_INPUTS, copy_repository

MORE = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "MANIFEST.in", "Makefile", "benchmarks"),
    *("constraints.txt", "docs", "examples", "hub", "mkdocs.yml", "tests"),
)


def test_the_sdist_has_every_source_and_nothing_built(tmp_path):
    tree = copy_repository(tmp_path / "tree", *BUILD_INPUTS, *MORE)
    sources = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert {"CMakeLists.txt", "csrc/bindings/cpu.cpp", "tests/helpers.py"} <= sources
    for built in ("marfast/_cpu.so", "tests/__pycache__/helpers.pyc"):
        (tree / built).parent.mkdir(exist_ok=True)
        (tree / built).touch()
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {m.name.partition("/")[2] for m in file.getmembers() if m.isfile()}
    made = {name for name in names if name.startswith("marfast.egg-info/")}
    assert names - made - {"PKG-INFO", "setup.cfg"} == sources
