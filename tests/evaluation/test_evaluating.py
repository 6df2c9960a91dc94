"""Evaluation: the same figures from files, from memory and from several processes; protocols."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

import marfast
from marfast.checkpoints import get_preset
from marfast.checkpoints.presets import MAR_PRESETS
from marfast.errors import ArgumentError
from marfast.evaluation import (
    PROTOCOLS,
    Court,
    Made,
    Place,
    Run,
    Stored,
    evaluate,
    protocol_of,
    sample,
)
from marfast.evaluation.frechet import fit_gaussian, frechet_distance
from marfast.evaluation.judges import FashionClassifier, Inception
from marfast.evaluation.real_images import real_images
from marfast.evaluation.reference import read_statistics
from marfast.evaluation.shards import FORMATS
from marfast.generation import Pipeline
from tests.evaluation.runs import RUN

QUICK = {"num_iter": 1, "steps": 2}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return marfast.load("fashion-mnist")


@pytest.fixture(scope="module")
def run(pipeline: Pipeline) -> Run:
    settings = pipeline.settings.replace(49, **QUICK)
    return Run.of(pipeline, 23, settings=settings, shard=4)


@pytest.fixture(scope="module")
def court() -> Court:
    return Court.of(PROTOCOLS["fashion-mnist"])


def assert_same(first: Any, second: Any) -> None:
    assert first.figures.keys() == second.figures.keys()
    for name, figure in first.figures.items():
        other = second.figures[name]
        assert figure.value == pytest.approx(other.value, rel=1e-9), name
        if figure.error is None:
            assert other.error is None
        else:
            assert figure.error == pytest.approx(other.error, rel=1e-6), name


def test_files_memory_and_processes_give_the_same_figures(
    pipeline: Pipeline, run: Run, court: Court, tmp_path: Path
) -> None:
    made = Made(pipeline, run)
    in_memory = evaluate(made, court)
    sample(pipeline, run, tmp_path / "images")
    stored = Stored.of(tmp_path / "images")
    assert_same(evaluate(stored, court), in_memory)
    assert_same(evaluate(stored, court, tmp_path / "images"), in_memory)

    kept = Made(pipeline, replace(run, kind="none"))
    assert_same(evaluate(kept, court, tmp_path / "sums", place=Place(1, 2)), in_memory)
    [folder] = [path for path in (tmp_path / "sums").iterdir() if path.is_dir()]
    parts = sorted(folder.iterdir())
    assert len(parts) == 6
    parts[2].unlink()
    assert_same(evaluate(kept, court, tmp_path / "sums"), in_memory)
    parts[2].write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"00002\.safetensors: no statistics"):
        evaluate(kept, court, tmp_path / "sums")


def test_a_shard_made_anew_is_judged_anew(
    pipeline: Pipeline, run: Run, court: Court, tmp_path: Path
) -> None:
    sample(pipeline, run, tmp_path)
    stored = Stored.of(tmp_path)
    first = evaluate(stored, court, tmp_path)
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    shard, ids = tmp_path / "00001.tar", run.shards[1]
    shard.unlink()
    FORMATS["tar"].write(shard, ids, run.labels(ids), np.zeros((4, 28, 28, 1), np.uint8))
    again = evaluate(stored, court, tmp_path)
    assert_same(again, evaluate(stored, court))
    assert again.figures["Fréchet distance"] != first.figures["Fréchet distance"]
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(after) == len(before) == 6
    assert len(after.items() & before.items()) == 5


def test_figures_are_those_of_all_images_at_once(
    pipeline: Pipeline, run: Run, court: Court
) -> None:
    found = evaluate(Made(pipeline, run), court)
    judged = [FashionClassifier()(Made(pipeline, run).pixels(i)) for i in range(6)]
    features = torch.cat([seen.features for seen in judged])
    distance = frechet_distance(fit_gaussian(features), real_images().test)
    assert found.figures["Fréchet distance"].value == pytest.approx(distance, rel=1e-9)
    right = torch.cat([seen.logits for seen in judged]).argmax(1) == torch.tensor(
        [i % 10 for i in range(23)]
    )
    assert found.figures["accuracy"].value == pytest.approx(float(right.double().mean()))
    assert found.protocol == "fashion-mnist"
    assert "FID" not in found.figures


def test_errors_shrink_with_groups_left_out(pipeline: Pipeline, run: Run, court: Court) -> None:
    found = evaluate(Made(pipeline, run), court)
    assert all(found.figures[name].error for name in ("Fréchet distance", "accuracy"))
    assert found.to_dict()["figures"]["accuracy"]["error"] == found.figures["accuracy"].error


def test_several_processes_need_a_folder(pipeline: Pipeline, run: Run, court: Court) -> None:
    with pytest.raises(ArgumentError, match="none given for 2 processes"):
        evaluate(Made(pipeline, run), court, place=Place(0, 2))


def test_a_covariance_needs_two_images(pipeline: Pipeline, run: Run, court: Court) -> None:
    with pytest.raises(ArgumentError, match="2 images"):
        evaluate(Made(pipeline, replace(run, count=1)), court)


def test_images_of_another_kind_are_refused(pipeline: Pipeline, run: Run, court: Court) -> None:
    with pytest.raises(ArgumentError, match=r"16 × 16 × 1; fashion-mnist's are 28 × 28 × 1"):
        evaluate(Made(pipeline, replace(run, side=16)), court)


@pytest.mark.parametrize(
    ("name", "cfg", "temperature"),
    [("mar", (2.9, 3.0, 3.2), 1.0), ("mar-unguided", (1,) * 3, 0.95)],
)
def test_the_papers_protocols(name: str, cfg: tuple[float, ...], temperature: float) -> None:
    protocol = PROTOCOLS[name]
    for model, scale in zip(MAR_PRESETS, cfg, strict=True):
        settings = protocol.settings(get_preset(model))
        assert settings is not None
        assert (settings.num_iter, settings.steps) == (256, 100)
        assert (settings.cfg, settings.cfg_schedule, settings.temperature) == (
            scale,
            "linear",
            temperature,
        )
        run = replace(RUN, count=50_000, model=model, settings=settings)
        protocol.check(run)
        other = settings.replace(256, num_iter=64)
        with pytest.raises(ArgumentError, match=r"num_iter 64; it has num_iter 256$"):
            protocol.check(replace(run, settings=other))
        with pytest.raises(ArgumentError, match=r"count 10000; it has count 50000$"):
            protocol.check(replace(run, count=10_000))


def test_the_papers_protocol_is_for_its_models() -> None:
    for check in (
        lambda: PROTOCOLS["mar"].settings(get_preset("fashion-mnist")),
        lambda: PROTOCOLS["mar"].check(RUN),
    ):
        with pytest.raises(ArgumentError, match="mar is the paper's for mar_base"):
            check()


def test_models_have_a_usual_protocol() -> None:
    assert protocol_of(None, "fashion-mnist").name == "fashion-mnist"
    assert protocol_of(None, "mar_base").name == "inception"
    with pytest.raises(ArgumentError, match="'fid'; allowed are fashion-mnist, inception, mar"):
        protocol_of("fid", "")


def test_only_the_fields_measure_is_called_fid() -> None:
    for protocol in PROTOCOLS.values():
        assert (protocol.distance == "FID") is protocol.inception


@pytest.mark.parametrize("name", ["inception", "statistics"])
def test_the_embedded_judge_needs_no_files(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: x; the protocol fashion-mnist has its own"):
        Court.of(PROTOCOLS["fashion-mnist"], **{name: "x"})


def test_nothing_is_downloaded() -> None:
    with pytest.raises(ArgumentError, match=r"inception: none given.*nothing is downloaded"):
        Court.of(PROTOCOLS["mar"])
    with pytest.raises(ArgumentError, match="statistics: none given"):
        Court.of(PROTOCOLS["mar"], "weights.pth")


def statistics(size: int = 128) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).normal(size=(300, size))
    return {"mu": values.mean(0), "sigma": np.cov(values, rowvar=False)}


def test_statistics_of_the_field_are_read(tmp_path: Path) -> None:
    known = statistics()
    np.savez(tmp_path / "mar.npz", **known)
    single = {name: value.astype(np.float32) for name, value in known.items()}
    np.savez(tmp_path / "single.npz", **single)
    images = np.zeros((7, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=images, mu_s=np.zeros(3), **known)
    torch.save(known, tmp_path / "cache.pt")
    judge = FashionClassifier()
    for name in ("mar.npz", "single.npz", "adm.npz", "cache.pt"):
        found = read_statistics(tmp_path / name, judge)
        assert found.name.startswith(name)
        exact = single if name == "single.npz" else known
        assert np.array_equal(found.gaussian.mean.numpy(), exact["mu"])
        assert np.array_equal(found.gaussian.covariance.numpy(), exact["sigma"])
        assert found.gaussian.mean.dtype == torch.float64
        assert (found.features is not None) is (name == "adm.npz")
    features = read_statistics(tmp_path / "adm.npz", judge).features
    assert features is not None
    assert features.shape == (7, 128)


def test_an_older_torch_reads_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(statistics(), tmp_path / "cache.pt")
    torch.save({}, tmp_path / "inception.pth")
    network = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    network.FeatureExtractorInceptionV3 = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, network.__name__, network)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    with pytest.raises(ArgumentError, match=r"cache\.pt: needs torch 2\.10, and this is 2\.9\.1"):
        read_statistics(tmp_path / "cache.pt", FashionClassifier())
    with pytest.raises(ArgumentError, match=r"inception\.pth: .*needs torch 2\.10"):
        Inception(tmp_path / "inception.pth")


def test_damaged_and_bare_statistics_are_refused(tmp_path: Path) -> None:
    damaged, bare = tmp_path / "damaged.npz", tmp_path / "bare.npz"
    np.savez_compressed(damaged, **statistics())
    data = bytearray(damaged.read_bytes())
    data[80:180] = b"\xff" * 100
    damaged.write_bytes(data)
    with bare.open("wb") as file:
        np.save(file, np.zeros(3))
    for path in (damaged, bare):
        with pytest.raises(ArgumentError, match=rf"{path.name}.*allowed are an \.npz"):
            read_statistics(path, FashionClassifier())


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("missing.npz", None, "no such file"),
        ("text.npz", b"no zip", "allowed are an .npz with mu and sigma"),
        ("other.npz", {"mean": np.zeros(3)}, "mu"),
        ("shapes.npz", {"mu": np.zeros(3), "sigma": np.zeros((3, 4))}, r"sigma \[3, 4\]"),
        ("nan.npz", {"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "not finite"),
        ("text.pt", b"no pickle", "allowed are"),
        ("images.npz", statistics(4) | {"arr_0": np.zeros((3, 2))}, "arr_0 is float64"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, contents: Any, said: str) -> None:
    if isinstance(contents, bytes):
        (tmp_path / name).write_bytes(contents)
    elif contents is not None:
        np.savez(tmp_path / name, **contents)
    with pytest.raises(ArgumentError, match=said) as caught:
        read_statistics(tmp_path / name, FashionClassifier())
    assert caught.value.name == "statistics"


def test_real_features_are_near_the_real_statistics() -> None:
    real = real_images()
    features = real.reference().features
    assert features is not None
    assert features.shape == (5_000, 128)
    assert frechet_distance(fit_gaussian(features), real.test) < 0.5
