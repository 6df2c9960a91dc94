"""docs/adding_an_op.md works as it is written: its blocks, put into a copy of the repository,
build, and the test among them passes there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build.tree import ROOT, copy_repository

BLOCK = re.compile(
    r"<!-- (new|insert): (\S+?)(?:, after: ([^\n]+?))? -->\n```\w+\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def apply(page: str, tree: Path) -> list[Path]:
    """Writes the page's blocks into `tree`; the files that are new."""
    new = []
    for kind, name, anchor, text in BLOCK.findall(page):
        path = tree / name
        if kind == "new":
            assert not path.exists(), f"{name} exists"
            path.write_text(text)
            new.append(path)
            continue
        lines = path.read_text().splitlines(keepends=True)
        places = [i for i, line in enumerate(lines) if line.strip() == anchor]
        assert len(places) == 1, f"{name} has {len(places)} lines {anchor!r}"
        lines.insert(places[0] + 1, text)
        path.write_text("".join(lines))
    return new


def run(*command: str, cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("needs_native")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_the_page_works(tmp_path):
    import pybind11

    page = (ROOT / "docs" / "adding_an_op.md").read_text()
    assert len(BLOCK.findall(page)) == page.count("```") // 2, "a block without its place"
    tree = copy_repository(tmp_path / "marfast", "tests/helpers.py", "tests/conftest.py")
    (tree / "tests" / "ops").mkdir()
    new = apply(page, tree)
    assert len(new) == 4

    # Two instruction sets are enough to compare, and quicker to build.
    leave_out = [f"-DMARFAST_COMPILES_{isa}=OFF" for isa in ("avx512", "avx512_bf16", "avx512_amx")]
    cmake = [sys.executable, "-m", "cmake"]
    run(
        *(*cmake, "-S", ".", "-B", "build", "-G", "Ninja", *leave_out),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        cwd=tree,
    )
    run(*cmake, "--build", "build", cwd=tree)
    run(*cmake, "--install", "build", "--prefix", "marfast", cwd=tree)
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops", cwd=tree)
    for path in new:
        if path.suffix == ".py" and shutil.which("ruff"):
            run("ruff", "check", str(path), cwd=tree)
            run("ruff", "format", "--check", str(path), cwd=tree)
