"""Sums and what is made of them: against independent formulas, and in any order."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from marfast.evaluation.classifier import Judgement
from marfast.evaluation.frechet import fit_gaussian, frechet_distance
from marfast.evaluation.measures import (
    grouped,
    inception_score,
    jackknife,
    precision_and_recall,
)
from marfast.evaluation.sums import MANIFOLD, Judged, Sums, total

LABELS = [i % 7 for i in range(900)]


def judgement(n: int = 900, size: int = 64, seed: int = 0) -> Judgement:
    """Correlated features with a large mean, as after a ReLU."""
    draws = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=draws) / size**0.5
    features = (torch.randn(n, size, generator=draws) @ mix + 1).relu()
    return Judgement(3 * torch.randn(n, 7, generator=draws), features)


def parts(judged: Judgement, sizes: list[int]) -> list[Sums]:
    logits, features = (tensor.split(sizes) for tensor in judged)
    labels = torch.tensor(LABELS).split(sizes)
    return [
        Sums.of(Judgement(x, f), label.tolist())
        for f, x, label in zip(features, logits, labels, strict=True)
    ]


def fid_of_torch_fidelity(mu1, sigma1, mu2, sigma2):
    """The trace of the root by the eigenvalues of the product, as its metric_fid has it."""
    root = np.sqrt(np.linalg.eigvals(sigma1 @ sigma2).astype(complex)).real.sum()
    return (mu1 - mu2) @ (mu1 - mu2) + np.trace(sigma1) + np.trace(sigma2) - 2 * root


def fid_by_square_root(mu1, sigma1, mu2, sigma2):
    """As the original code of the TTUR paper."""
    linalg = pytest.importorskip("scipy.linalg")
    root = np.trace(linalg.sqrtm(sigma1 @ sigma2).real)
    return (mu1 - mu2) @ (mu1 - mu2) + np.trace(sigma1) + np.trace(sigma2) - 2 * root


@pytest.mark.parametrize("formula", [fid_of_torch_fidelity, fid_by_square_root])
def test_the_distance_is_the_fields(formula) -> None:
    made, real = judgement(), judgement(seed=1)
    statistics = [
        (np.mean(f.features.double().numpy(), 0), np.cov(f.features.double().numpy(), rowvar=False))
        for f in (made, real)
    ]
    expected = formula(*statistics[0], *statistics[1])
    sums = total(parts(made, [300, 600]))
    distance = frechet_distance(sums.gaussian(), fit_gaussian(real.features))
    assert distance == pytest.approx(expected, rel=1e-6)


def test_the_order_of_merging_has_no_influence() -> None:
    real = fit_gaussian(judgement(seed=1).features)
    pieces = parts(judgement(), [90] * 10)
    distances = []
    for seed in range(6):
        random.Random(seed).shuffle(pieces)
        pairs = [a + b for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        for merged in (total(pieces), total(pairs)):
            distances.append(frechet_distance(merged.gaussian(), real))
    assert max(distances) == pytest.approx(min(distances), rel=1e-9)
    whole = fit_gaussian(judgement().features)
    assert distances[0] == pytest.approx(frechet_distance(whole, real), rel=1e-9)


def test_a_part_can_be_taken_away() -> None:
    first, second = parts(judgement(), [400, 500])
    for name, left in vars((first + second) - first).items():
        torch.testing.assert_close(left, getattr(second, name))


def test_accuracy_is_counted() -> None:
    judged = judgement()
    seen = judged.logits.argmax(1)
    expected = float((seen == torch.tensor(LABELS)).double().mean())
    assert total(parts(judged, [100] * 9)).accuracy() == pytest.approx(expected)


def test_the_inception_score_is_the_usual_one() -> None:
    judged = judgement()
    p = judged.logits.double().softmax(1)
    scores = []
    for of_split in p.split(90):
        marginal = of_split.mean(0, keepdim=True)
        kl = of_split * (of_split.log() - marginal.log())
        scores.append(float(kl.sum(1).mean().exp()))
    figure = inception_score(grouped(parts(judged, [30] * 30)))
    assert figure.value == pytest.approx(np.mean(scores))
    assert figure.error == pytest.approx(np.std(scores))


def test_a_certain_judge_of_one_class_scores_one() -> None:
    logits = torch.tensor([[500.0, 0.0, -1e30]] * 20)
    sums = Sums.of(Judgement(logits, torch.zeros(20, 2)), [0] * 20)
    assert sums.inception_score() == pytest.approx(1)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = torch.randn(10, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = [Sums.of(Judgement(torch.zeros(1, 2), v[None]), [0]) for v in values]
    figure = jackknife(groups, lambda sums: float(sums.first / sums.count))
    assert figure.value == pytest.approx(float(values.mean()))
    assert figure.error == pytest.approx(float(values.std() / 10**0.5))
    assert jackknife(groups[:2], lambda sums: float(sums.first / sums.count)).error is None


@pytest.mark.parametrize("count", [1, 2, 9, 10, 25])
def test_groups_are_consecutive_and_about_equal(count: int) -> None:
    pieces = [Sums.of(Judgement(torch.zeros(1, 2), torch.ones(1, 1)), [0])] * count
    sizes = [int(group.count) for group in grouped(pieces)]
    assert sum(sizes) == count
    assert len(sizes) == min(10, count)
    assert max(sizes) - min(sizes) <= 1


def test_precision_and_recall_against_every_pair() -> None:
    made, real = judgement(60, 5).features, judgement(50, 5, seed=1).features + 0.3

    def share(points: torch.Tensor, others: torch.Tensor) -> float:
        inside = 0
        for point in points:
            for i, other in enumerate(others):
                own = sorted(float((other - o).norm()) for j, o in enumerate(others) if j != i)
                if float((point - other).norm()) <= own[2]:
                    inside += 1
                    break
        return inside / len(points)

    precision, recall = precision_and_recall(made, real)
    assert precision == pytest.approx(share(made, real))
    assert recall == pytest.approx(share(real, made))
    assert 0 < precision < 1
    assert precision_and_recall(real, real) == (1, 1)
    assert precision_and_recall(real + 1e3, real) == (0, 0)


def test_parts_are_kept_in_files(tmp_path: Path) -> None:
    judged = judgement(20, 4)
    ids = range(MANIFOLD - 5, MANIFOLD + 15)
    part = Judged.of(judged, ids, LABELS[:20])
    assert torch.equal(part.features, judged.features[:5])
    part.save(tmp_path / "part")
    stored = Judged.load(tmp_path / "part")
    assert torch.equal(stored.features, part.features)
    for name, value in vars(part.sums).items():
        assert torch.equal(getattr(stored.sums, name), value)


@pytest.mark.parametrize("data", [b"", b"nonsense" * 9])
def test_a_damaged_part_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "part").write_bytes(data)
    with pytest.raises(ValueError, match="part: no statistics"):
        Judged.load(tmp_path / "part")
