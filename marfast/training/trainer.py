"""A run in memory: the model, its averages, the optimiser, and one step of them."""

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from marfast.checkpoints import Checkpoint
from marfast.errors import ArgumentError, CheckpointError
from marfast.evaluation.work import Place
from marfast.training import saved
from marfast.training.data import Batch, Data
from marfast.training.objective import Objective, build
from marfast.training.optimisation import Average, learning_rate, make_optimizer
from marfast.training.saved import Counts, Plan
from marfast.training.settings import TrainSettings
from marfast.training.streams import Streams, own_generators, seed_all


class Step(NamedTuple):
    """What a step told, the same in each process."""

    loss: float
    """Mean over the batch."""
    norm: float
    """Of all gradients, before it was clipped."""
    lr: float
    good: bool
    """Whether loss and norm were finite; if not, nothing has changed."""
    told: tuple[float, ...]
    """Sums over the processes of what each one told."""


def parts_of(settings: TrainSettings, place: Place) -> range:
    """The parts of each batch that a process computes: equally many each."""
    parts = settings.parts or 1
    if parts % place.ranks:
        said = f"{parts} by {place.ranks} processes"
        raise ArgumentError("parts", said, "allowed are as many processes as divide the parts")
    share = parts // place.ranks
    return range(place.rank * share, (place.rank + 1) * share)


class Trainer:
    """The run of a plan on a device, as one of several processes; a process group of them is there
    if there are several. A batch's gradient is the mean of its parts', whichever process computes
    them.

    checkpoint: weights to begin with; None draws them from the seed.
    """

    def __init__(
        self,
        plan: Plan,
        data: Data,
        per_epoch: int,
        device: torch.device,
        place: Place,
        checkpoint: Checkpoint | None = None,
    ):
        settings = plan.settings
        self.plan, self.data, self.device, self.place = plan, data, device, place
        self.per_epoch = per_epoch
        self.parts = parts_of(settings, place)
        with own_generators(device):
            seed_all(settings.seed)
            self.module = build(plan.preset.architecture, settings)
        if checkpoint is not None:
            checkpoint.file.check(self.module)
            self.module.load_state_dict(checkpoint.file.copies(torch.float32))
        self.module.to(device)
        self.averages = [Average(self.module, rate, settings.ema_warmup) for rate in settings.ema]
        self.optimizer = make_optimizer(self.module, settings)
        self.objective: nn.Module = Objective(self.module, settings)
        if place.ranks > 1:
            ids = None if device.index is None else [device.index]
            self.objective = DistributedDataParallel(self.objective, device_ids=ids)
        self.streams = Streams(settings.seed, self.parts, device)
        self.counts = Counts()

    def step(self, batch: Sequence[Batch], told: Sequence[float] = ()) -> Step:
        """Learn from a batch, of which this process has its parts; `told` is added up over the
        processes."""
        settings, counts = self.plan.settings, self.counts
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, of_part in zip(self.parts, batch, strict=True):
            with self.streams.of(part), self._synchronised(part == self.parts[-1]):
                loss = self._loss(of_part) / len(self.parts)
                loss.backward()
            total += loss.detach()
        mean, *sums = self._summed(total, told)
        loss_value = mean / self.place.ranks
        lr = learning_rate(settings, counts.step / self.per_epoch)
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), settings.clip or math.inf))
        good = math.isfinite(loss_value) and math.isfinite(norm)
        if good:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            for average in self.averages:
                average.update(self.module, counts.updates)
            counts.updates += 1
        counts.step += 1
        return Step(loss_value, norm, lr, good, tuple(sums))

    def _loss(self, batch: Batch) -> Tensor:
        labels = batch.labels.to(self.device, non_blocking=True)
        x = self.data.finish(batch.items.to(self.device, non_blocking=True))
        lengths = None if batch.lengths is None else batch.lengths.tolist()
        loss: Tensor = self.objective(x, labels, lengths)
        return loss

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients of several parts are added up here before they meet those of others."""
        if last or not isinstance(self.objective, DistributedDataParallel):
            return nullcontext()
        return self.objective.no_sync()

    def _summed(self, loss: Tensor, told: Sequence[float]) -> list[float]:
        values = torch.cat([loss[None], loss.new_tensor([*told])])
        if self.place.ranks > 1:
            dist.all_reduce(values)
        found: list[float] = values.tolist()
        return found

    def save(self, folder: Path) -> None:
        """Write the run's checkpoint, from the process that leads."""
        states, unreadable = self.streams.states, self.counts.unreadable
        if self.place.ranks > 1:
            gathered: list[Any] = [None] * self.place.ranks
            dist.all_gather_object(gathered, (states, unreadable))
            states = {part: state for of, _ in gathered for part, state in of.items()}
            unreadable = {path: why for _, of in gathered for path, why in of.items()}
        if self.place.leads:
            counts = dataclasses.replace(self.counts, unreadable=unreadable)
            saved.write_checkpoint(
                folder,
                self.plan.preset,
                counts,
                self.module,
                self.averages,
                self.optimizer,
                states,
            )

    def load(self, folder: Path) -> None:
        """Go on from the checkpoint of a run's folder."""
        self.counts, states = saved.read_checkpoint(
            folder, self.module, self.averages, self.optimizer
        )
        if missing := {*self.parts} - states.keys():
            said = f"{folder / saved.LAST}: has no random numbers of part {min(missing)}"
            raise CheckpointError(said)
        self.streams.load(states)
