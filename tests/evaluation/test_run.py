"""What a run's images are, and whose folder is whose."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from marfast.checkpoints import Settings
from marfast.errors import ArgumentError
from marfast.evaluation.run import MANIFEST, Run, open_run, read_run
from tests.evaluation.runs import RUN


def test_shards_cover_each_image_once() -> None:
    assert [i for ids in RUN.shards for i in ids] == [*range(23)]
    assert [len(ids) for ids in RUN.shards] == [5, 5, 5, 5, 3]


def test_classes_take_turns_whatever_the_count() -> None:
    labels = RUN.labels(range(23))
    assert {labels.count(c) for c in range(10)} == {2, 3}
    assert RUN.balance() == "2 of each class, and one more of the first 3"
    assert replace(RUN, count=30).balance() == "3 of each class"


def test_seeds_of_a_run_differ_and_those_of_other_runs_lie_far_away() -> None:
    assert RUN.seeds(range(4)) == [0, 1, 2, 3]
    runs = [replace(RUN, seed=seed).seeds(range(1)) for seed in range(100)]
    starts = sorted(seed for [seed] in runs)
    assert min(b - a for a, b in itertools.pairwise(starts)) > 10_000_000
    last = replace(RUN, seed=2**32 - 1).seeds(range(10**9, 10**9 + 3))
    assert len({*last}) == 3
    assert all(0 <= seed < 2**32 for seed in last)


def test_a_folder_is_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    open_run(folder, RUN)
    open_run(folder, RUN)
    assert read_run(folder) == RUN
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(RUN, count=24, seed=1), "another run: count 23, not 24; seed 0, not 1"),
        (replace(RUN, weights="2" * 64), "weights 111111111111…, not 222222222222…"),
        (replace(RUN, settings=Settings(num_iter=3)), "num_iter 2, not 3"),
        (replace(RUN, dtype="bfloat16"), "dtype float32, not bfloat16"),
        (replace(RUN, tokenizer="3" * 64), "tokenizer none, not 333333333333…"),
    ],
)
def test_another_runs_folder_is_refused(tmp_path: Path, other: Run, said: str) -> None:
    open_run(tmp_path / "run", RUN)
    before = (tmp_path / "run" / MANIFEST).read_bytes()
    with pytest.raises(ArgumentError) as caught:
        open_run(tmp_path / "run", other)
    assert caught.value.name == "out"
    assert said in str(caught.value)
    assert (tmp_path / "run" / MANIFEST).read_bytes() == before


def test_every_field_tells_runs_apart() -> None:
    assert RUN.differences(RUN) == []
    assert RUN.differences(replace(RUN, part=1)) == ["part 3, not 1"]


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArgumentError, match=r"no manifest.json, and thesis.tex in it"):
        open_run(tmp_path, RUN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no manifest of a run"),
        ("[]", "no manifest of a run"),
        ('{"run": {"count": 0}}', "count: 0"),
        (json.dumps({"run": {"count": 3}}), "it is missing"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ArgumentError, match=f"manifest.json: .*{said}"):
        read_run(tmp_path)


def test_a_folder_without_a_manifest_is_no_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json: no such file"):
        read_run(tmp_path)
