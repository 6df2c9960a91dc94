"""A run's images, judged: shard by shard, in memory or by files that several processes share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from marfast.errors import ArgumentError
from marfast.evaluation.frechet import frechet_distance
from marfast.evaluation.judges import FashionClassifier, Inception, Judge
from marfast.evaluation.measures import (
    Figure,
    grouped,
    inception_score,
    jackknife,
    precision_and_recall,
)
from marfast.evaluation.protocols import Protocol
from marfast.evaluation.real_images import real_images
from marfast.evaluation.reference import Reference, read_statistics
from marfast.evaluation.run import Run, open_run
from marfast.evaluation.sampling import Counted, Made, Progress, Source
from marfast.evaluation.sums import MANIFOLD, Judged, Sums
from marfast.evaluation.work import Place, complete
from marfast.files import sweep


@dataclass(frozen=True)
class Evaluation:
    """Figures, and all that they depend on."""

    protocol: str
    run: Run
    judge: str
    judge_weights: str
    reference: str
    figures: dict[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        told = {name: figure._asdict() for name, figure in self.figures.items()}
        return asdict(self) | {"figures": told}


@dataclass(frozen=True)
class Court:
    """A protocol with its judge and the real images: what looks at images, and what turns that into
    figures."""

    protocol: Protocol
    judge: Judge
    reference: Reference

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        inception: str | Path | None = None,
        statistics: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> "Court":
        """inception: torch-fidelity's weights, for protocols that need them. statistics: `mu` and
        `sigma` of real images by the same network.

        ArgumentError names what is missing, wrong or of no use; ImportError says what to install.
        """
        if not protocol.inception:
            for name, given in (("inception", inception), ("statistics", statistics)):
                if given is not None:
                    raise ArgumentError(name, f"{given}; the protocol {protocol.name} has its own")
            return cls(protocol, FashionClassifier(), real_images().reference())
        if inception is None:
            raise ArgumentError(
                "inception",
                f"none given, and the protocol {protocol.name} needs the file of torch-fidelity's"
                " weights",
                "weights-inception-2015-12-05-6726825d.pth; nothing is downloaded",
            )
        if statistics is None:
            raise ArgumentError(
                "statistics",
                f"none given, and the protocol {protocol.name} needs those of real images",
                "an .npz with mu and sigma, such as adm_in256_stats.npz of LTH14/mar",
            )
        judge = Inception(inception, device)
        reference = read_statistics(statistics, judge)
        size = judge.network.fc.in_features
        if len(reference.gaussian.mean) != size:
            given = f"{statistics}: of {len(reference.gaussian.mean)} features"
            raise ArgumentError("statistics", given, f"Inception has {size}")
        return cls(protocol, judge, reference)

    def judged(self, source: Source, shard: int, count: Counted | None = None) -> Judged:
        ids = source.run.shards[shard]
        pixels = source.pixels(shard, None if count is None else count.within(shard))
        return Judged.of(self.judge(pixels), ids, source.run.labels(ids))

    def figures(self, parts: Sequence[Judged]) -> dict[str, Figure]:
        """Of all parts, in the order of their images. ValueError for fewer than 2 images."""
        groups = grouped([part.sums for part in parts])
        found = {self.protocol.distance: jackknife(groups, self._distance)}
        if self.judge.labels:
            found["accuracy"] = jackknife(groups, Sums.accuracy)
        else:
            found["Inception Score"] = inception_score(groups)
        if self.reference.features is not None:
            made = torch.cat([part.features for part in parts])[:MANIFOLD]
            precision, recall = precision_and_recall(made, self.reference.features)
            found |= {"precision": Figure(precision), "recall": Figure(recall)}
        return found

    def _distance(self, sums: Sums) -> float:
        if sums.count < 2:
            raise ArgumentError("count", int(sums.count), "a covariance needs 2 images or more")
        return frechet_distance(sums.gaussian(), self.reference.gaussian)


def evaluate(
    source: Source,
    court: Court,
    folder: str | Path | None = None,
    *,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the images of a run.

    Without a folder all is done here, and nothing is written. With one, statistics of each shard
    are kept in it: several processes share the work, a stopped one is gone on with, and each of
    them returns the whole. `Stored` images' folder is the run's own.

    Raises ArgumentError before any work; ValueError for a shard that can't be read.
    """
    run, place = source.run, place or Place.here()
    court.protocol.check(run)
    court.judge.check(run.side, run.channels)
    if run.count < 2:
        raise ArgumentError("count", run.count, "a covariance needs 2 images or more")
    count = Counted(run, progress)
    if folder is None:
        if place.ranks > 1:
            raise ArgumentError("out", f"none given for {place.ranks} processes")
        parts = []
        for shard in range(len(run.shards)):
            count.missing([*range(shard, len(run.shards))])
            parts.append(court.judged(source, shard, count))
    else:
        parts = _shared(source, court, Path(folder), place, count)
    count.missing([])
    judge, name = court.judge, court.protocol.name
    figures = court.figures(parts)
    return Evaluation(name, run, judge.name, judge.weights, court.reference.name, figures)


def _shared(
    source: Source, court: Court, folder: Path, place: Place, count: Counted
) -> list[Judged]:
    run, judge = source.run, court.judge
    if isinstance(source, Made):
        open_run(folder, run)
    where = folder / f"{judge.name}-{judge.weights[:8]}"
    sweep(where)
    files = [
        where / f"{shard:05}{source.mark(shard)}.safetensors" for shard in range(len(run.shards))
    ]

    def make(shard: int, path: Path) -> None:
        court.judged(source, shard, count).save(path)

    complete(files, make, place, count.missing)
    for outdated in {*where.glob("*.safetensors")} - {*files}:
        outdated.unlink(missing_ok=True)
    parts = [Judged.load(file) for file in files]
    for file, ids, part in zip(files, run.shards, parts, strict=True):
        if int(part.sums.count) != len(ids):
            raise ValueError(f"{file}: of {int(part.sums.count)} images, not {len(ids)}; remove it")
    return parts
