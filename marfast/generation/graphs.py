"""The loop's iterations as graphs: captured once, replayed for other labels, seeds and guidance.

An iteration is two graphs. The transformer's is its own: how many tokens are known differs in each.
The head's is shared by all iterations that predict as many tokens by the same schedule. They meet
in tensors of one `Proposal` for each number of tokens, and share those of one `Loop`.

They are made at the second generation of a key, or by `marfast.warmup`, kept while they fit into
`GRAPH_MEMORY`, and used by every later generation of the key. Step noise is drawn inside the
graphs, by generators of their own, which take the caller's state before a replay and give it back
after.
"""

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast import profiling
from marfast.checkpoints import Settings
from marfast.generation.device import Device, Graph
from marfast.generation.loop import Loop, Proposal
from marfast.generation.progress import Progress
from marfast.generation.randomness import Randomness
from marfast.generation.start import Start
from marfast.model.mar import FastMAR
from marfast.model.own import fingerprint
from marfast.model.schedule import Schedule
from marfast.ops import choice, tuning
from marfast.ops.self_check import DeviceLost, is_capturing
from marfast.ops.shape_class import float32_products

GRAPH_MEMORY = 4 << 30
"""Bytes that the graphs of one model may hold on to."""
REMEMBERED = 64
"""Keys of which it is known that they were met once, or can't be captured."""

_WANTED: ContextVar[bool] = ContextVar(
    "marfast_graphs", default=os.environ.get("MARFAST_GRAPHS") != "0"
)


@contextmanager
def off() -> Iterator[None]:
    """Generations inside the block launch kernel by kernel."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


class Key(NamedTuple):
    """What one captured loop is for; all else may change from replay to replay."""

    kind: tuple[object, ...]
    weights: tuple[object, ...]
    """Where they are."""


class CaptureFailed(RuntimeError):
    """A loop can't be kept as graphs; generations launch kernel by kernel."""


class CapturedLoop:
    """The K iterations of one key, recorded."""

    def __init__(self, loop: Loop, device: Device, limit: int):
        self.loop, self._own = loop, loop.randomness
        self._busy = threading.Lock()
        self._turns = device.turns()
        self.heads: dict[Hashable, Graph] = {}
        self.transformers: list[Graph] = []
        self.inputs: dict[int, Proposal] = {}  # by number of tokens
        iterations = range(loop.settings.num_iter)
        for k in iterations:
            device.prepare(partial(self._prepare, k))
        before, pool = device.used(), device.pool()
        for k in iterations:
            graph = device.graph([], pool)
            graph.capture(partial(self._transformer, k))
            self.transformers.append(graph)
            if (head := loop.head_of(k)) not in self.heads:
                graph = device.graph(loop.randomness.device_generators, pool)
                graph.capture(partial(loop.denoise, self.inputs[self._count(k)], k))
                self.heads[head] = graph
                if device.held_by(pool) > limit:
                    break
        self.bytes = max(device.held_by(pool), device.used() - before)
        if self.bytes > limit:
            raise CaptureFailed(f"it needs {self.bytes} bytes or more; graphs may hold {limit}")
        self.weights = loop.model.weights  # the graphs read them
        del loop.model  # it may be what keeps these graphs

    @property
    def graphs(self) -> int:
        return len(self.transformers) + len(self.heads)

    def _count(self, k: int) -> int:
        """Tokens of an image that iteration k predicts."""
        return self.loop.masked[k] - self.loop.left[k]

    def _propose(self, k: int) -> Proposal:
        """A row for each label: others may come."""
        return self.loop.propose(k, share=False)

    def _prepare(self, k: int) -> None:
        proposal = self._propose(k)
        if (count := self._count(k)) not in self.inputs:
            self.inputs[count] = Proposal(*(part.clone() for part in proposal))
        self.loop.denoise(proposal, k)

    def _transformer(self, k: int) -> None:
        for kept, part in zip(self.inputs[self._count(k)], self._propose(k), strict=True):
            kept.copy_(part)

    def run(
        self,
        labels: Tensor,
        randomness: Randomness,
        settings: Settings,
        progress: Progress | None,
        start: Start | None = None,
    ) -> Tensor | None:
        """As `sample_tokens`; None while another thread has the tensors."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            with self._turns:
                return self._run(labels, randomness, settings, progress, start)
        finally:
            self._busy.release()

    def _run(
        self,
        labels: Tensor,
        randomness: Randomness,
        settings: Settings,
        progress: Progress | None,
        start: Start | None,
    ) -> Tensor:
        loop, own = self.loop, self._own
        try:
            loop.fill(labels, randomness, settings, start)
        finally:  # where orders can't be drawn, too
            loop.randomness = own
        pairs = list(zip(own.device_generators, randomness.device_generators, strict=True))
        for mine, theirs in pairs:
            mine.set_state(theirs.get_state())
        for k, transformer in enumerate(self.transformers):
            with loop.range(k):  # those of the capture are gone
                transformer.replay()
                with profiling.range("head", len(self.inputs[self._count(k)].z)):
                    self.heads[loop.head_of(k)].replay()
            if progress:
                progress(k + 1, len(self.transformers))
        for mine, theirs in pairs:
            theirs.set_state(mine.get_state())
        return loop.tokens.clone()


class Graphs:
    """A model's captured loops, the least recently used first."""

    def __init__(self, device: Device, limit: int = GRAPH_MEMORY):
        self.device = device
        self.limit = limit
        self.kept: OrderedDict[Key, CapturedLoop] = OrderedDict()
        self._met: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.RLock()

    def find(self, key: Key) -> CapturedLoop | None:
        with self._lock:
            found = self.kept.get(key)
            if found is None:
                self._forget_weights_before(key)
            else:
                self.kept.move_to_end(key)
            return found

    def _forget_weights_before(self, key: Key) -> None:
        """What was captured with weights that calls of this kind no longer have: it may be all that
        keeps these, and `limit` counts none."""
        known: list[OrderedDict[Key, Any]] = [self.kept, self._met]
        others = [old for keys in known for old in keys if old.weights != key.weights]
        replaced = {old.weights for old in others if old.kind == key.kind}
        for keys in known:
            for old in [old for old in keys if old.weights in replaced]:
                del keys[old]

    def at_second_sight(self, key: Key, loop: Callable[[], Loop]) -> CapturedLoop | None:
        """The one of this key, captured if it was asked for before and can be."""
        if not _WANTED.get() or is_capturing():
            return None
        if (found := self.find(key)) is not None:
            return found
        with self._lock:
            if (reason := self._met.get(key)) is None:
                self._remember(key, "")
            if reason != "" or profiling.watching():
                return None
            try:
                return self.capture(key, loop)
            except CaptureFailed as error:
                what = f"the loop can't be captured: {error}; generations launch kernel by kernel"
                warnings.warn(what, RuntimeWarning, stacklevel=5)
                return None

    def capture(self, key: Key, loop: Callable[[], Loop]) -> CapturedLoop:
        """Record a loop, whose randomness is its own; CaptureFailed says why it can't be."""
        with self._lock:
            self._forget_weights_before(key)
            try:
                with torch.inference_mode(False), torch.no_grad():
                    captured = CapturedLoop(loop(), self.device, self.limit)
            except DeviceLost:
                raise
            except Exception as error:
                reason = str(error) or type(error).__name__
                self._remember(key, reason)
                raise CaptureFailed(reason) from error
            self.kept[key] = captured
            while sum(entry.bytes for entry in self.kept.values()) > self.limit:
                dropped, _ = self.kept.popitem(last=False)
                self._remember(dropped, "its graphs gave way to others")  # else they would in turn
            return captured

    def _remember(self, key: Key, reason: str) -> None:
        """What is known of a key: that it was met, or why it isn't captured unasked."""
        self._met[key] = reason
        while len(self._met) > REMEMBERED:
            self._met.popitem(last=False)


def key_of(
    model: FastMAR,
    images: int,
    randomness: Randomness,
    settings: Settings,
    schedules: Sequence[Schedule],
    start: Start | None = None,
) -> Key:
    """Of a generation of so many images."""
    module, device = model.module, model.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    kind = (
        images,
        module.seq_len if start is None else start.count,
        randomness.layout,
        bool(settings.cfg != 1.0),
        replace(settings, cfg=1.0, cfg_schedule="constant"),
        tuple(schedule.coefficients.data_ptr() for schedule in schedules),
        model.dtype,
        autocast,
        choice.forced(),
        tuning.is_on(model.device),
        torch.are_deterministic_algorithms_enabled(),
        float32_products(),
        fingerprint(module),
    )
    weights = (*module.parameters(), *model.weights)
    return Key(kind, tuple((weight.data_ptr(), weight.dtype) for weight in weights))
