"""What README and docs show is made from the committed results, by studies that still load."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from benchmarks.studies import IMAGES, ROOT
from benchmarks.studies.tables import pages

STUDIES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "benchmarks" / "studies").rglob("*.py"))
]


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- tables: ") == 2 * len(pages.MARKED.findall(text)) > 0
    assert pages.rewritten(text) == text, "run python -m benchmarks.studies.tables"


def test_pictures_are_those_of_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.studies import pictures

    monkeypatch.setattr(sys, "argv", ["pictures", "--out", str(tmp_path)])
    pictures.main()
    made = {file.name for file in tmp_path.iterdir()}
    patterns = ("*-avx*.png", "quality-samplers.png", "curve-fashion-mnist.png")
    assert made == {file.name for pattern in patterns for file in IMAGES.glob(pattern)}


def test_every_picture_is_shown_and_every_shown_picture_is_there() -> None:
    pages = {page: page.read_text() for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
    shown = {
        (page.parent / name).resolve()
        for page, text in pages.items()
        for name in re.findall(r"!\[[^]]*\]\(([^)]+\.png)\)", text)
    }
    assert shown == set(IMAGES.iterdir())


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_loads(name: str) -> None:
    if name.endswith((".pictures", ".sampler")):
        pytest.importorskip("matplotlib")
    importlib.import_module(name)
