"""Parts of the published measurements: finished ones are known, failed ones don't count."""

from pathlib import Path

import pytest

from benchmarks import publish
from benchmarks.publish import Part


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = {
        "good": Part(("-c", "pass")),
        "bad": Part(("-c", "raise SystemExit(1)"), quick=("-c", "pass")),
        "theirs": Part(
            ("-c", "import sys; assert sys.argv[1:] == ['--original', 'mar']"), (), True
        ),
    }
    monkeypatch.setattr(publish, "PARTS", parts)
    monkeypatch.setattr(publish, "FINISHED", tmp_path)


def test_a_finished_part_is_known_by_its_commit() -> None:
    assert publish.finished("good") is None
    assert publish.run("good", None, "avx2", quick=False)
    assert publish.finished("good") == publish.commit()


def test_a_failed_part_is_not_finished() -> None:
    assert not publish.run("bad", None, "avx2", quick=False)
    assert publish.finished("bad") is None


def test_a_quick_part_is_not_finished() -> None:
    assert publish.run("bad", None, "avx2", quick=True)
    assert publish.finished("bad") is None


def test_the_original_goes_to_those_that_take_it() -> None:
    assert publish.run("theirs", "mar", "avx2", quick=False)
    assert not publish.run("theirs", None, "avx2", quick=False)
    assert publish.run("good", "mar", "avx2", quick=False)
