"""Damaged and hostile files: a clear error, no code run, nothing half-loaded, little memory."""

import json
import sys
from pathlib import Path

import pytest

from tests.checkpoints.fuzz import run, write_corpus


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what is written is odd
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_every_file_of_the_corpus_ends_in_a_model_or_an_error(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    result = run(tmp_path)
    assert result["failures"] == []
    print(json.dumps(result))
    assert result["tried"] >= 2000
    assert result["unreadable"] >= 900
    assert result["refused"] >= 500
    assert 100 <= result["loaded"] <= 300  # flips of bits that count for nothing, or for one weight
