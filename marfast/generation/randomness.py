"""Every random number of a generation, drawn in the order in which LTH14/mar draws it.

Orders come from numpy (one shuffle an image). Each iteration's initial noise [N, C] comes from
torch's CPU generator on every device. Step noise comes from the device's generator: S separate
draws of [R, C], R = 2N under guidance, of which the first N rows are used.

A batch may be generated in parts. Each part draws the numbers of the whole batch from the same
state and keeps its own rows: the split never changes an image, and memory follows the part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.reference.mar import random_orders

NOISE_MEMORY = 32 << 20
"""Bytes of step noise that are drawn at a time, about, twice as many under guidance: the noise of
all steps may be far more than anything else that a generation holds."""


class Randomness(Protocol):
    """The random numbers of the images `rows` of a batch: orders first, then an iteration's initial
    noise, then its step noise, unless `ahead`."""

    @property
    def ahead(self) -> bool:
        """Whether all initial noises may be drawn before any step noise: the generators differ."""

    @property
    def layout(self) -> tuple[object, ...]:
        """Which numbers are drawn and which of them kept: the same for any seeds."""

    @property
    def device_generators(self) -> list[torch.Generator]:
        """Those that step noise comes from."""

    def orders(self, seq_len: int) -> Tensor:
        """Generation orders [images, L], on the CPU."""

    def initial_noise(self, tokens: int, channels: int) -> Tensor:
        """An iteration's initial noise [images·tokens, C], on the CPU."""

    def step_noise(self, tokens: int, channels: int, steps: int, guided: bool) -> Tensor:
        """Step noise of an iteration's next S steps, [S, images·tokens, C], on the generator's
        device."""

    def twin(self) -> "Randomness":
        """The same layout with generators of its own, whatever they hold."""


@dataclass
class Generators:
    """The three generators that a generation draws from; `device` may be `cpu` itself."""

    numpy: Any
    cpu: torch.Generator
    device: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> "Generators":
        """As `np.random.seed(seed)` and `torch.manual_seed(seed)` would leave the global ones."""
        cpu = torch.Generator("cpu").manual_seed(seed)
        on_device = cpu if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
        return cls(np.random.RandomState(seed), cpu, on_device)

    @classmethod
    def of(cls, seed: "Seed", device: torch.device) -> "Generators":
        """Seeded, the global ones for None, or those that are given."""
        if isinstance(seed, Generators):
            return seed
        return cls.global_ones(device) if seed is None else cls.seeded(seed, device)

    @classmethod
    def global_ones(cls, device: torch.device) -> "Generators":
        """numpy's and torch's own, which the caller may have seeded."""
        cpu = torch.default_generator
        if device.type == "cpu":
            return cls(np.random, cpu, cpu)
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            return cls(np.random, cpu, torch.cuda.default_generators[index])
        raise ArgumentError("device", device, "without a seed, allowed are cpu and cuda")

    def twin(self) -> "Generators":
        """Others on the same devices."""
        device = torch.Generator(self.device.device)
        return Generators(np.random.RandomState(0), torch.Generator("cpu"), device)

    def state(self) -> tuple[Any, Tensor, Tensor]:
        return self.numpy.get_state(), self.cpu.get_state(), self.device.get_state()

    def set_state(self, state: tuple[Any, Tensor, Tensor]) -> None:
        self.numpy.set_state(state[0])
        self.cpu.set_state(state[1])
        self.device.set_state(state[2])


Seed = int | Generators | None
"""What a stream of random numbers starts from: generators go on from where they are."""


class BatchRandomness:
    """One stream for a batch of images, of which `rows` are kept."""

    def __init__(self, generators: Generators, batch: int, rows: range):
        self.generators = generators
        self.batch = batch
        self.rows = rows

    def orders(self, seq_len: int) -> Tensor:
        whole = random_orders(self.batch, seq_len, self.generators.numpy)
        return whole[self.rows.start : self.rows.stop]

    @property
    def ahead(self) -> bool:
        return self.generators.device is not self.generators.cpu

    @property
    def layout(self) -> tuple[object, ...]:
        return self.batch, self.rows

    @property
    def device_generators(self) -> list[torch.Generator]:
        return [self.generators.device]

    def initial_noise(self, tokens: int, channels: int) -> Tensor:
        return _randn(self.batch * tokens, channels, self.generators.cpu)[self._kept(tokens)]

    def step_noise(self, tokens: int, channels: int, steps: int, guided: bool) -> Tensor:
        generator, kept = self.generators.device, self._kept(tokens)
        rows = self.batch * tokens * (2 if guided else 1)
        empty = partial(torch.empty, dtype=torch.float32, device=generator.device)
        if len(self.rows) == self.batch:  # all that is drawn, or half of it, is kept
            drawn = empty((steps, rows, channels))
            for of_step in drawn:
                of_step.normal_(generator=generator)
            return drawn[:, kept]
        noise, whole = empty((steps, len(self.rows) * tokens, channels)), empty((rows, channels))
        for of_step in noise:
            of_step.copy_(whole.normal_(generator=generator)[kept])
        return noise

    def twin(self) -> "BatchRandomness":
        return BatchRandomness(self.generators.twin(), self.batch, self.rows)

    def _kept(self, tokens: int) -> slice:
        return slice(self.rows.start * tokens, self.rows.stop * tokens)


class ImageRandomness:
    """A stream for each image: image i draws as a batch of one, whatever the batch it is in."""

    def __init__(self, streams: Sequence[BatchRandomness]):
        self.streams = streams

    def orders(self, seq_len: int) -> Tensor:
        return torch.cat([stream.orders(seq_len) for stream in self.streams])

    @property
    def ahead(self) -> bool:
        return all(stream.ahead for stream in self.streams)

    @property
    def layout(self) -> tuple[object, ...]:
        return tuple(stream.layout for stream in self.streams)

    @property
    def device_generators(self) -> list[torch.Generator]:
        return [stream.generators.device for stream in self.streams]

    def initial_noise(self, tokens: int, channels: int) -> Tensor:
        return torch.cat([stream.initial_noise(tokens, channels) for stream in self.streams])

    def step_noise(self, tokens: int, channels: int, steps: int, guided: bool) -> Tensor:
        drawn = [stream.step_noise(tokens, channels, steps, guided) for stream in self.streams]
        return torch.cat(drawn, dim=1)

    def twin(self) -> "ImageRandomness":
        return ImageRandomness([stream.twin() for stream in self.streams])


def step_noises(
    randomness: Randomness, images: int, tokens: int, channels: int, steps: int, guided: bool
) -> Iterator[Tensor]:
    """An iteration's step noise for `images` images, by chunks of consecutive steps, each drawn
    when it is asked for: [s, images·tokens, C]."""
    most = max(1, NOISE_MEMORY // (4 * images * tokens * channels))
    for first in range(0, steps, most):
        yield randomness.step_noise(tokens, channels, min(most, steps - first), guided)


def _randn(rows: int, channels: int, generator: torch.Generator) -> Tensor:
    """Whatever the caller's default dtype and device are."""
    return torch.randn(
        (rows, channels), generator=generator, dtype=torch.float32, device=generator.device
    )


def randomness_of_parts(
    seed: Seed | Sequence[Seed], batch: int, parts: Sequence[range], device: torch.device
) -> Iterator[Randomness]:
    """The randomness of each part of a batch, in turn.

    seed: one for the batch, or one for each image. None, for the global generators, and generators
    are left as one generation of the whole batch leaves them.
    """
    if isinstance(seed, Sequence):
        for rows in parts:
            streams = [Generators.of(seed[image], device) for image in rows]
            yield ImageRandomness([BatchRandomness(s, 1, range(1)) for s in streams])
        return
    generators = Generators.of(seed, device)
    start = generators.state()
    for rows in parts:
        generators.set_state(start)
        yield BatchRandomness(generators, batch, rows)
