"""Folders of images: the same whoever makes them, however often they are killed."""

import multiprocessing
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marfast.errors import ArgumentError
from marfast.evaluation import Made, Place, Run, Stored, sample
from marfast.evaluation.run import MANIFEST, Kind
from marfast.evaluation.shards import FORMATS, UnreadableShard
from marfast.generation import Pipeline
from marfast.pixels import to_pixels
from tests.cli.program import files
from tests.limits import HANG
from tests.models import tiny_pipeline

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return tiny_pipeline(steps=2, num_iter=2)


def run_of(pipeline: Pipeline, count: int = 23, kind: Kind = "tar") -> Run:
    return Run.of(pipeline, count, kind=kind, shard=2, part=2)


def test_shards_are_a_tenth_and_1000_at_most(pipeline: Pipeline) -> None:
    sizes = {n: Run.of(pipeline, n).shard for n in (1, 9, 10, 23, 2000, 50_000)}
    assert sizes == {1: 1, 9: 1, 10: 1, 23: 3, 2000: 200, 50_000: 1000}


@pytest.mark.parametrize(("count", "name"), [(0, "count"), (-1, "count"), (1.5, "count")])
def test_no_run_of_nonsense(pipeline: Pipeline, count: int, name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Run.of(pipeline, count, shard=1)
    assert caught.value.name == name


def test_an_image_is_what_generate_makes_of_its_seed(pipeline: Pipeline) -> None:
    run = replace(run_of(pipeline), seed=3)
    ids = run.shards[4]
    images = pipeline.generate(run.labels(ids), seed=run.seeds(ids))
    assert np.array_equal(Made(pipeline, run).pixels(4), to_pixels(images))


def test_a_run_without_an_interval_is_sampled_without_the_models(pipeline: Pipeline) -> None:
    guided = replace(run_of(pipeline), settings=replace(pipeline.settings, cfg=4.0))
    own = replace(guided.settings, guidance_interval=(0.4, 0.6))
    limited = Pipeline(pipeline.model, own, pipeline.classes)
    images = Made(limited, guided).pixels(0)
    assert np.array_equal(images, Made(pipeline, guided).pixels(0))
    assert not np.array_equal(images, Made(limited, replace(guided, settings=own)).pixels(0))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_stored_is_what_was_made(pipeline: Pipeline, kind: Kind, tmp_path: Path) -> None:
    run, told = run_of(pipeline, 5, kind), []
    assert sample(pipeline, run, tmp_path / "run", progress=lambda *at: told.append(at)) == 3
    stored, made = Stored.of(tmp_path / "run"), Made(pipeline, run)
    assert stored.run == run
    for shard in range(3):
        assert np.array_equal(stored.pixels(shard), made.pixels(shard))
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    assert told == sorted(told)


def test_a_broken_run_is_gone_on_with(pipeline: Pipeline, tmp_path: Path) -> None:
    run = run_of(pipeline)
    sample(pipeline, run, tmp_path / "whole")
    whole = files(tmp_path / "whole")
    assert len(whole) == 13
    sample(pipeline, run, tmp_path / "run")
    (tmp_path / "run" / "00003.tar").unlink()
    (tmp_path / "run" / "00011.tar").unlink()
    kept = (tmp_path / "run" / "00000.tar").stat().st_mtime_ns
    assert sample(pipeline, run, tmp_path / "run", place=Place(1, 3)) == 2
    assert files(tmp_path / "run") == whole
    assert (tmp_path / "run" / "00000.tar").stat().st_mtime_ns == kept


def test_processes_killed_at_random_moments_make_the_same_files(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    run, draws = run_of(pipeline), random.Random(0)
    start = time.perf_counter()
    sample(pipeline, run, tmp_path / "whole")
    took = time.perf_counter() - start
    for ranks in (1, 2, 3):
        folder = tmp_path / f"by{ranks}"
        for round_ in range(4):
            last = round_ == 3
            processes = [
                FORK.Process(
                    target=sample, args=(pipeline, run, folder), kwargs={"place": Place(r, ranks)}
                )
                for r in range(ranks)
            ]
            for process in processes:
                process.start()
            time.sleep(draws.uniform(0, took / 2))
            for process in processes[: ranks - 1 if last else ranks]:
                process.kill()  # in the last round one is left, if there are several
            if last and ranks == 1:
                sample(pipeline, run, folder)
            for process in processes:
                process.join(HANG)
                assert process.exitcode is not None
        assert files(folder) == files(tmp_path / "whole")


def test_shards_made_anew_are_joined_anew(pipeline: Pipeline, tmp_path: Path) -> None:
    run = run_of(pipeline, 5, "npz")
    sample(pipeline, run, tmp_path)
    joined, shard = tmp_path / "images.npz", tmp_path / "00001.npz"
    whole, made = joined.read_bytes(), joined.stat().st_mtime_ns
    assert sample(pipeline, run, tmp_path) == 0
    assert joined.stat().st_mtime_ns == made
    shard.unlink()
    FORMATS["npz"].write(shard, run.shards[1], [2, 3], np.zeros((2, 16, 16, 1), np.uint8))
    os.utime(shard, ns=(made + 1, made + 1))
    sample(pipeline, run, tmp_path)
    with np.load(joined) as images:
        assert not images["arr_0"][2:4].any()
    shard.unlink()
    assert sample(pipeline, run, tmp_path) == 1
    assert joined.read_bytes() == whole


def test_another_models_folder_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    sample(pipeline, run_of(pipeline, 3), tmp_path / "run")
    before = files(tmp_path / "run")
    other = tiny_pipeline(steps=2, num_iter=2)
    next(other.model.module.parameters()).mul_(2)
    with pytest.raises(ArgumentError, match="holds another run: weights "):
        sample(other, run_of(other, 3), tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_a_damaged_shard_is_named_before_any_work(pipeline: Pipeline, tmp_path: Path) -> None:
    run = run_of(pipeline, 6)
    sample(pipeline, run, tmp_path)
    shard = tmp_path / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    (tmp_path / "00002.tar").unlink()
    with pytest.raises(UnreadableShard, match=r"00001\.tar.*remove it"):
        sample(pipeline, run, tmp_path)
    assert not (tmp_path / "00002.tar").exists()
    shard.unlink()
    assert sample(pipeline, run, tmp_path) == 2


def test_a_shard_that_cannot_be_written_leaves_the_others(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(pipeline, 6)
    write = FORMATS["tar"].write

    def full(path: Path, ids: range, *rest: object) -> None:
        write(path, ids, *rest)  # type: ignore[arg-type]
        if ids.start == 4:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setitem(FORMATS, "tar", FORMATS["tar"]._replace(write=full))
    with pytest.raises(OSError, match="No space"):
        sample(pipeline, run, tmp_path)
    assert sorted(files(tmp_path)) == ["00000.tar", "00001.tar", MANIFEST]
    monkeypatch.undo()
    assert sample(pipeline, run, tmp_path) == 1


def test_an_unfinished_folder_is_not_read(pipeline: Pipeline, tmp_path: Path) -> None:
    sample(pipeline, run_of(pipeline, 6), tmp_path)
    (tmp_path / "00002.tar").unlink()
    with pytest.raises(ArgumentError, match="1 of 3 shards are missing"):
        Stored.of(tmp_path)
