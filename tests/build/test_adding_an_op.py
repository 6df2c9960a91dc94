"""docs/adding_an_op.md works as it is written: its blocks, put into a fresh copy of the repository,
build, and `make lint` passes there, and of `make test` what knows of a CPU's ops: the page's own
test, those that go over the table of ops, and those that go over all files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build.tree import ROOT, copy_repository

BLOCK = re.compile(
    r"<!-- (new|insert): (\S+?)(?:, after: ([^\n]+?))? -->\n(```+)\w+\n(.*?)^\4$",
    re.DOTALL | re.MULTILINE,
)
OF_ALL_FILES = ("tests/test_imports.py", "tests/build/test_isa.py", "tests/build/test_sources.py")
TABLE = re.compile(r"(?<!import )\bOPS\b(?!\[)")
"""Where all of it is meant, and not one op."""
OF_GPUS = {"emulation", "gpu", "triton"}
INSIDE = "MARFAST_TEST_ADDING_AN_OP"
"""Set in the copy, whose own run of this test would make another copy."""


def apply(page: str, tree: Path) -> list[Path]:
    """Writes the page's blocks into `tree`; the files that are new."""
    new = []
    for kind, name, anchor, _, text in BLOCK.findall(page):
        path = tree / name
        if kind == "new":
            assert not path.exists(), f"{name} exists"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            new.append(path)
            continue
        lines = path.read_text().splitlines(keepends=True)
        places = [i for i, line in enumerate(lines) if line.strip() == anchor]
        assert len(places) == 1, f"{name} has {len(places)} lines {anchor!r}"
        lines.insert(places[0] + 1, text)
        path.write_text("".join(lines))
    return new


def selected(tree: Path, new: list[Path]) -> str:
    """Options of pytest's."""
    of_ops = [
        file
        for file in tree.glob("tests/**/test_*.py")
        if not OF_GPUS & {*file.relative_to(tree).parts}
        and (file in new or TABLE.search(file.read_text()))
    ]
    names = sorted({*OF_ALL_FILES, *(str(file.relative_to(tree)) for file in of_ops)})
    return f"-m 'not slow' {' '.join(names)}"


def run(*command: str, cwd: Path) -> None:
    """In the copy, whose package wins over the one that is installed."""
    environment = {**os.environ, "PYTHONPATH": str(cwd), INSIDE: "1"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-20_000:]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_native")
@pytest.mark.skipif(INSIDE in os.environ, reason="this is the copy")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_page_works(tmp_path):
    import pybind11

    page = (ROOT / "docs" / "adding_an_op.md").read_text()
    assert len(BLOCK.findall(page)) == page.count("<!-- "), "a block without its place"
    tree = copy_repository(tmp_path / "marfast")
    new = apply(page, tree)
    assert len(new) == 5
    if (ROOT / ".mypy_cache").is_dir():  # what it knows of torch
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    run("git", "init", "--quiet", cwd=tree)
    run("git", "add", "--all", cwd=tree)

    cmake = [sys.executable, "-m", "cmake"]
    python, found = f"-DPython_EXECUTABLE={sys.executable}", pybind11.get_cmake_dir()
    run(
        *cmake, "-S", ".", "-B", "build", "-G", "Ninja", python, f"-Dpybind11_DIR={found}", cwd=tree
    )
    run(*cmake, "--build", "build", cwd=tree)
    run(*cmake, "--install", "build", "--prefix", "marfast", cwd=tree)
    # `make` with an environment that is there already
    environment = Path(sys.executable).parents[1]
    make = ["make", f"VENV={environment}", "-o", f"{environment}/dev"]
    run(*make, "lint", cwd=tree)
    run(*make, f"SELECT={selected(tree, new)}", "test", cwd=tree)
