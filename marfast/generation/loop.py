"""The autoregressive loop: MAR algorithm 1 over whole images. The one loop of the package.

Mask lengths depend on K and on how many tokens are unknown at the start (L, or an edit's M), so all
shapes of the K iterations are known before the first one runs, and which tokens an iteration knows
and predicts is index arithmetic on the orders: no mask is searched, and nothing waits for a device.
"""

from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast import profiling
from marfast.checkpoints import Settings
from marfast.generation.randomness import Randomness, step_noises
from marfast.generation.start import Start
from marfast.model.mar import FastMAR
from marfast.model.schedule import Schedule
from marfast.reference.diffusion import HeadOptions
from marfast.reference.mar import guidance_scale, mask_lengths


class Proposal(NamedTuple):
    """What the head reads of an iteration that predicts n tokens of each of B images."""

    predict: Tensor  # [B, n], their positions
    z: Tensor  # [R·n, D], the condition vectors
    noise: Tensor  # [B·n, C]
    guidance: Tensor  # [1]


class Loop:
    """The inputs of a generation on the model's device, and its K iterations.

    `fill` takes other labels, random numbers, guidance and known tokens of the same sizes into the
    same tensors. `tokens` [B, L, C] is the result.
    """

    def __init__(
        self,
        model: FastMAR,
        labels: Tensor,
        randomness: Randomness,
        settings: Settings,
        schedules: Sequence[Schedule],
        start: Start | None = None,
    ):
        module = model.module
        self.model, self.settings, self.schedules = model, settings, schedules
        self.seq_len, self.channels = module.seq_len, module.token_embed_dim
        self.guided = bool(settings.cfg != 1.0)
        self.options = HeadOptions(1 + self.guided, settings.temperature, settings.clip_denoised)
        self.unknown = self.seq_len if start is None else start.count
        lengths = mask_lengths(self.unknown, settings.num_iter)
        self.masked = lengths[:-1]
        self.left = [*lengths[1:-1], 0]  # the last iteration leaves nothing
        self.scheduled = lengths[1:]  # what the guidance scale follows

        def on_device(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sizes, dtype=dtype, device=model.device)

        images = len(labels)
        self.labels = on_device(images, dtype=torch.int64)
        self.orders = on_device(images, self.seq_len, dtype=torch.int64)
        self.rows = torch.arange(images, device=model.device)[:, None]
        self.initial_noise = on_device(images * self.unknown, self.channels)
        self.guidance = on_device(settings.num_iter, 1)
        self.tokens = on_device(images, self.seq_len, self.channels)
        self.known = torch.zeros_like(self.tokens) if self.unknown < self.seq_len else None
        self.fill(labels, randomness, settings, start)

    def fill(
        self, labels: Tensor, randomness: Randomness, settings: Settings, start: Start | None
    ) -> None:
        """Take labels [B], orders and noises that are drawn ahead, the K guidance scales, and what
        is known at the start."""
        self.randomness = randomness
        _upload(labels, self.labels)
        orders = randomness.orders(self.seq_len)
        if start is not None:
            orders = start.order(orders)
            if self.known is not None:
                _upload(start.tokens, self.known)
        _upload(orders, self.orders)
        if randomness.ahead:
            counts = [masked - left for masked, left in zip(self.masked, self.left, strict=True)]
            drawn = [randomness.initial_noise(count, self.channels) for count in counts]
            _upload(torch.cat(drawn), self.initial_noise)
        scales = [
            guidance_scale(settings.cfg, settings.cfg_schedule, self.seq_len, length)
            for length in self.scheduled
        ]
        values = [
            torch.as_tensor(scale, dtype=torch.float32, device=getattr(scale, "device", "cpu"))
            for scale in scales
        ]
        _upload(torch.stack([value.reshape(1) for value in values]), self.guidance)

    def iteration(self, k: int) -> None:
        """Predict the tokens of iteration k, 0 ... K − 1, in turn."""
        with self.range(k):
            self.denoise(self.propose(k), k)

    def range(self, k: int) -> AbstractContextManager[Any]:
        """Iteration k's for profilers, with the tokens it predicts."""
        return profiling.range(f"iteration {k}", len(self.tokens) * (self.masked[k] - self.left[k]))

    def propose(self, k: int, share: bool = True) -> Proposal:
        """The transformer's part of iteration k. share: rows of one class may be computed once, as
        many as the labels have."""
        if k == 0:
            self.begin()
        masked, left = self.masked[k], self.left[k]
        known = self.orders[:, masked:].sort(dim=1).values
        predict = self.orders[:, left:masked].sort(dim=1).values
        tokens, known, predict_all = (
            torch.cat([x, x]) if self.guided else x for x in (self.tokens, known, predict)
        )
        embedding, source = self.class_embedding, None
        if share and known.shape[1] == 0 and self.model.shares_rows:  # a row is its class
            first, source = self._classes()
            tokens, known, embedding = tokens[first], known[first], embedding[first]
        z = self.model.condition(tokens, known, predict_all, embedding, source)
        return Proposal(predict, z, self._initial_noise(masked, left), self.guidance[k])

    def _classes(self) -> tuple[Tensor, Tensor]:
        """A row [U] of each class, "none" among them, and which of these each row [R] is."""
        classes = self.labels.tolist()
        if self.guided:
            classes += [-1] * len(classes)
        place: dict[int, int] = {}
        source = [place.setdefault(label, len(place)) for label in classes]
        first = [classes.index(label) for label in place]
        return torch.tensor(first, device="cpu"), torch.tensor(source, device="cpu")

    def denoise(self, proposal: Proposal, k: int) -> None:
        """The head's part of iteration k, or of another that has the same head."""
        predict, z, noise, guidance = proposal
        schedule = self.schedules[k]
        noises = self._step_noises(predict.shape[1], len(schedule))
        sampled = self.model.sample_head(z, noise, noises, schedule, guidance, self.options)
        self.tokens[self.rows, predict] = sampled.view(len(self.tokens), -1, self.channels)

    def head_of(self, k: int) -> Hashable:
        """The same for iterations whose heads do the same work."""
        return self.masked[k] - self.left[k], id(self.schedules[k])

    def begin(self) -> None:
        """Only the start's tokens are known; what all iterations share is computed."""
        if self.known is None:
            self.tokens.zero_()
        else:
            self.tokens.copy_(self.known)
        embedding = self.model.class_embedding(self.labels)
        if self.guided:
            no_class = self.model.class_embedding(torch.full_like(self.labels, -1))
            embedding = torch.cat([embedding, no_class])
        self.class_embedding = embedding

    def _initial_noise(self, masked: int, left: int) -> Tensor:
        count, images = masked - left, len(self.tokens)
        if self.randomness.ahead:
            first = images * (self.unknown - masked)
            return self.initial_noise[first : first + images * count]
        return self.randomness.initial_noise(count, self.channels).to(self.tokens.device)

    def _step_noises(self, count: int, steps: int) -> Iterable[Tensor]:
        images = len(self.tokens)
        noises = step_noises(self.randomness, images, count, self.channels, steps, self.guided)
        return (chunk.to(self.tokens.device) for chunk in noises)


def _upload(values: Tensor, to: Tensor) -> None:
    """Without waiting for the device: from pinned memory, which torch keeps until it is read."""
    if to.device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    to.copy_(values, non_blocking=True)
