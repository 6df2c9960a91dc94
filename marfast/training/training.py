"""A session of a run: from where it is to where it is told to stop, or to its last epoch."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from marfast.checkpoints import find, get_preset
from marfast.checkpoints.checkpoint import ModelLike, PresetLike
from marfast.checkpoints.weights_hash import weights_hash
from marfast.errors import ArgumentError, ExistingFile
from marfast.evaluation.work import Place
from marfast.files import sweep
from marfast.generation.load import check_device
from marfast.model.tokenizer import Tokenizer
from marfast.training.batches import Batches
from marfast.training.data import Data
from marfast.training.log import Log, Row
from marfast.training.saved import LAST, PLAN, Plan
from marfast.training.settings import Session, TrainSettings
from marfast.training.sheets import can_draw, draw
from marfast.training.streams import own_generators
from marfast.training.surroundings import claimed_folder, process_group, stop_signals
from marfast.training.trainer import Step, Trainer, parts_of

BAD_STEPS = 3
"""In a row, after which a run ends."""


class NotFinite(RuntimeError):
    """Losses or gradients were not finite in several steps in a row."""


class Progress(NamedTuple):
    """Told after each step, by the process that leads."""

    step: int
    steps: int
    """Of the whole run."""
    epoch: float
    loss: float
    """Mean since the last row of the log."""
    images_per_second: float
    """Since the last row of the log in this session."""
    seconds_left: float
    """Until the last epoch or the end of the session."""
    skipped: int
    """Steps of the run whose loss was not finite."""
    unreadable: int
    saved: bool
    """Whether this step is in a checkpoint."""


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome:
    """Where a session has left a run."""

    step: int
    epoch: float
    loss: float
    """Mean of the last steps."""
    steps_made: int
    """In this session, and its speed."""
    images_per_second: float
    skipped: int
    unreadable: dict[str, str]
    """Files that were left out, and why."""
    finished: bool
    """Whether the last epoch is over."""
    interrupted: bool
    """Whether a signal has ended the session."""


def train(
    model: PresetLike,
    data: Data,
    out: str | Path,
    settings: TrainSettings,
    *,
    session: Session = Session(),  # noqa: B008 (it can't change)
    start: ModelLike | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    tokenizer: Tokenizer | None = None,
    place: Place | None = None,
    report: Report | None = None,
) -> Outcome:
    """Train a model into a folder, or go on with the run that is there exactly from its last
    checkpoint: on a CPU, bit for bit what the run would have been without an end.

    model: what to train, as `marfast.load` takes a preset.
    out: the run's folder; `last` in it is a model for `marfast.load`.
    settings: `recipe` has those of each preset.
    start: a model to begin with, instead of random weights.
    resume: go on with the run in the folder, if there is one.
    tokenizer: for sheets of images by a model of latents.
    place: this process among those of the run; None asks the environment, as torchrun sets it.
    report: told after each step.

    The caller's generators stay as they are. SIGINT and SIGTERM end the session after a step, which
    is saved. Raises ImportError without scipy, ArgumentError before any work, CheckpointError for
    what is in the folder, NotFinite, and OSError where a checkpoint can't be written: the last one
    stays.
    """
    _need_scipy()
    place = place or Place.here()
    folder, device = Path(out), check_device(device)
    if model is None:
        raise ArgumentError("model", "none given", "allowed are presets and a config.json")
    preset = get_preset(model)
    settings = settings.replace(parts=settings.parts or place.ranks)
    checkpoint = None if start is None else find(start, preset)
    digest = "" if checkpoint is None else weights_hash(checkpoint.file.weights)
    plan = Plan(preset, settings, data.facts, digest)
    batches = Batches(data, settings, parts_of(settings, place), session.workers)
    if session.sample_minutes is not None and not can_draw(preset, tokenizer):
        said = "this model makes no images"
        raise ArgumentError("sample_minutes", said, "allowed with pixels or a tokenizer")
    plan = _check_folder(folder, plan, resume)
    with ExitStack() as stack:
        stack.enter_context(own_generators(device))
        if place.leads:
            stack.enter_context(claimed_folder(folder, PLAN))
            sweep(folder)
        stack.enter_context(process_group(place, device))
        trainer = Trainer(plan, data, batches.per_epoch, device, place, checkpoint)
        if (folder / LAST).exists():
            trainer.load(folder)
            batches.unreadable.update(trainer.counts.unreadable)
        log = None
        if place.leads:
            plan.write(folder)
            log = Log(folder, trainer.counts.step)
            stack.callback(log.close)
        asked = stack.enter_context(stop_signals())
        return _Loop(trainer, batches, folder, session, log, tokenizer, report).on(asked)


def _check_folder(folder: Path, plan: Plan, resume: bool) -> Plan:
    """The run that begins there, or goes on. ArgumentError unless it may."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentError("out", f"{folder} is a file, not a folder")
    if (folder / PLAN).exists():
        if not resume:
            raise ExistingFile("out", f"{folder} holds a run", "resume goes on with it")
        found = Plan.read(folder)
        found.check_same(plan, folder)
        return replace(plan, start=found.start)
    if (folder / LAST).exists():
        raise ExistingFile("out", f"{folder / LAST} exists, and no {PLAN} beside it")
    return plan


def _need_scipy() -> None:
    """Of which the model draws its mask ratios."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        raise ImportError("training needs scipy: pip install 'marfast[train]'") from None


class _Loop:
    """A session, step by step."""

    def __init__(
        self,
        trainer: Trainer,
        batches: Batches,
        folder: Path,
        session: Session,
        log: Log | None,
        tokenizer: Tokenizer | None,
        report: Report | None,
    ):
        self.trainer, self.batches, self.folder, self.session = trainer, batches, folder, session
        self.log, self.tokenizer, self.report = log, tokenizer, report
        self.settings, self.counts = trainer.plan.settings, trainer.counts
        self.steps = self.settings.epochs * batches.per_epoch
        self.first, self.begun = self.counts.step, time.monotonic()
        self.row = (self.first, self.begun)  # where the next row of the log begins, in this session
        self.earlier = self.counts.seconds
        self.ends = math.inf if session.minutes is None else self.begun + 60 * session.minutes
        self.saved = self.drawn = self.begun
        self.loss = math.nan

    def on(self, asked: list[int]) -> Outcome:
        """To its end; a signal on the list is one."""
        leads, reader = self.log is not None, self.batches.from_step(self.first)
        stop = self.counts.step >= self.steps
        try:
            while not stop:
                now = time.monotonic()
                save = leads and now - self.saved >= 60 * self.session.save_minutes
                end = bool(asked) or (leads and now >= self.ends)
                step = self.trainer.step(next(reader), (float(save), float(end)))
                stop = self._note(step)
                if stop or step.told[0]:
                    self.trainer.save(self.folder)
                    self.saved = time.monotonic()
                self._tell(step, bool(stop or step.told[0]))
        finally:
            reader.close()
        return self._outcome(bool(asked))

    def _note(self, step: Step) -> bool:
        """Count a step, and log a row if it is time. Whether the session is over."""
        counts, now = self.counts, time.monotonic()
        counts.seconds = self.earlier + now - self.begun
        counts.unreadable = self.batches.unreadable
        if step.good:
            counts.bad = 0
            counts.losses += 1
            counts.loss += step.loss
        else:
            counts.bad += 1
        if counts.bad == BAD_STEPS:
            counts.bad = 0
            self.trainer.save(self.folder)
            raise NotFinite(
                f"loss or gradients were not finite in {BAD_STEPS} steps in a row, the last of "
                f"which is step {counts.step}; {self.folder / LAST} has the weights before them"
            )
        self.loss = counts.loss / counts.losses if counts.losses else math.nan
        self.speed = self._speed(now)
        if counts.step % self.session.log_steps == 0:
            if self.log is not None:
                self.log.add(self._row(step))
            counts.losses, counts.loss = 0, 0.0
            self.row = (counts.step, now)
        return counts.step >= self.steps or step.told[1] > 0

    def _row(self, step: Step) -> Row:
        counts = self.counts
        epoch = round(counts.step / self.batches.per_epoch, 6)
        return Row(
            *(counts.step, epoch, self.loss, step.lr, step.norm),
            *(self.speed, counts.seconds, counts.skipped),
        )

    def _speed(self, now: float) -> float:
        first, begun = self.row
        return (self.counts.step - first) * self.settings.batch / max(now - begun, 1e-9)

    def _tell(self, step: Step, saved: bool) -> None:
        if self.log is None:
            return
        counts, now = self.counts, time.monotonic()
        if self.report is not None:
            pace = (now - self.begun) / (counts.step - self.first)
            left = min((self.steps - counts.step) * pace, max(self.ends - now, 0.0))
            self.report(
                Progress(
                    *(counts.step, self.steps, counts.step / self.batches.per_epoch),
                    *(self.loss, self.speed, left),
                    *(counts.skipped, len(counts.unreadable), saved),
                )
            )
        due = self.session.sample_minutes
        if due is not None and now - self.drawn >= 60 * due:
            draw(self.trainer, self.tokenizer, self.folder)
            self.drawn = time.monotonic()

    def _outcome(self, interrupted: bool) -> Outcome:
        counts = self.counts
        made, seconds = counts.step - self.first, time.monotonic() - self.begun
        return Outcome(
            *(counts.step, counts.step / self.batches.per_epoch, self.loss, made),
            made * self.settings.batch / max(seconds, 1e-9),
            *(counts.skipped, dict(counts.unreadable)),
            *(counts.step >= self.steps, interrupted),
        )
