"""From labels to images: the model that `marfast.load` returns."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from marfast import profiling
from marfast.checkpoints import Report, Settings
from marfast.errors import ArgumentError, check_whole
from marfast.generation.loop import Progress
from marfast.generation.randomness import randomness_of_parts
from marfast.generation.sample import sample_tokens
from marfast.model.mar import FastMAR
from marfast.model.tokenizer import Tokenizer

PART_MEMORY = 1 << 30  # bytes of activations that one part of a batch may take, about
ACTIVATIONS = 16  # vectors of the transformer's width that are live for each position, about

Labels = int | Sequence[int | None] | npt.NDArray[Any] | Tensor
Seed = int | Sequence[int] | npt.NDArray[Any] | Tensor | None


class Pipeline:
    """A loaded model. `settings` are its defaults, `classes` its labels' names where known,
    `report` tells what was read from which file.

    `model` is the thin model, `model.module` the `reference.MAR` that holds the parameters;
    `tokenizer` turns its latents into images, where they are latents and it was given one.
    """

    def __init__(
        self,
        model: FastMAR,
        settings: Settings,
        classes: tuple[str, ...] = (),
        report: Report | None = None,
        tokenizer: Tokenizer | None = None,
    ):
        self.model = model
        self.settings = settings
        self.classes = classes
        self.report = report
        self.tokenizer = tokenizer

    @property
    def makes_images(self) -> bool:
        """Whether `generate` returns images in [−1, 1], and not a tokenizer's latents: tokens are
        pixels, or there is a tokenizer."""
        return self.tokenizer is not None or bool(self.model.module.vae_stride == 1)

    @property
    def largest_part(self) -> int:
        """How many images are computed at a time unless told otherwise: what memory allows."""
        module = self.model.module
        width = max(module.decoder_pos_embed_learned.shape[2], module.encoder_norm.weight.shape[0])
        positions = module.seq_len + module.buffer_size
        image = 2 * positions * width * ACTIVATIONS * module.mask_token.element_size()
        return max(1, int(PART_MEMORY // image))

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the model, and the tokenizer if it has a method `to`."""
        self.model.module.to(device)
        if move := getattr(self.tokenizer, "to", None):
            move(device)
        return self

    def generate(
        self,
        labels: Labels,
        *,
        seed: Seed = None,
        num_iter: int | None = None,
        steps: int | str | None = None,
        cfg: float | None = None,
        cfg_schedule: str | None = None,
        temperature: float | None = None,
        part: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Generate images [B, C, H, W] in [−1, 1], one for each label (latents, not clamped, where
        the model makes latents and has no tokenizer).

        labels: class indices, as Python's, NumPy's or torch's integers; None in their place makes
            an image of no class.
        seed: one for the batch gives what seeding numpy and torch with it and one `sample_tokens`
            of the whole batch gives; a sequence, one for each image, makes images independent of
            their batch; None draws from the global generators, which a seed leaves alone.
        num_iter, steps, cfg, cfg_schedule, temperature: as in `Settings`; None takes the model's.
        part: how many images to compute at a time; None chooses by memory. It never changes which
            random number goes where.
        progress: called with (done, of) iterations.

        Raises ArgumentError, a ValueError, before any work.
        """
        images = self.generate_parts(
            labels,
            seed=seed,
            num_iter=num_iter,
            steps=steps,
            cfg=cfg,
            cfg_schedule=cfg_schedule,
            temperature=temperature,
            part=part,
            progress=progress,
        )
        return torch.cat([*images])

    def generate_parts(
        self,
        labels: Labels,
        *,
        seed: Seed = None,
        part: int | None = None,
        first: int = 0,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[Tensor]:
        """`generate`, part by part, for whoever stores images as they come.

        first: the first image to compute, for whoever has those before it already.
        """
        module = self.model.module
        label_tensor = self._labels(labels)
        batch = len(label_tensor)
        seeds = _seeds(seed, batch)
        chosen = self.settings.replace(module.seq_len, **settings)
        size = self.largest_part if part is None else check_whole("part", part, 1)
        allowed = f"allowed are 0 to {batch}, the number of labels"
        first = check_whole("first", first, 0, batch, allowed)
        parts = [range(i, min(i + size, batch)) for i in range(first, batch, size)]
        return self._run(label_tensor, seeds, parts, chosen, progress)

    def _run(
        self,
        labels: Tensor,
        seed: int | Sequence[int] | None,
        parts: Sequence[range],
        settings: Settings,
        progress: Progress | None,
    ) -> Iterator[Tensor]:
        total = len(parts) * settings.num_iter
        schedule = self.model.schedule(settings.steps)
        random_parts = randomness_of_parts(seed, len(labels), parts, self.model.device)
        for i, (rows, randomness) in enumerate(zip(parts, random_parts, strict=True)):

            def report(done: int, of: int, finished: int = i) -> None:
                if progress:
                    progress(finished * of + done, total)

            with torch.no_grad():
                part = labels[rows.start : rows.stop]
                tokens = sample_tokens(self.model, part, randomness, settings, schedule, report)
                images: Tensor = self.model.module.unpatchify(tokens)
                if self.tokenizer is not None:
                    with profiling.range("vae", len(images)):
                        images = self.tokenizer.decode(images)
            yield images.clamp(-1, 1) if self.makes_images else images

    def _labels(self, labels: Labels) -> Tensor:
        most = self.model.module.num_classes - 1
        listed = _listed(labels)
        values = listed if isinstance(listed, list) else [listed]
        if not values:
            raise ArgumentError("labels", "none given", "at least one is needed")
        allowed = f"allowed are 0 to {most}, or None"
        indices = [-1 if v is None else check_whole("labels", v, 0, most, allowed) for v in values]
        return torch.tensor(indices, dtype=torch.int64, device=self.model.device)


def _listed(given: Any) -> Any:
    """A list, where one is given in any form; NumPy's and torch's numbers as Python's."""
    given = given.tolist() if hasattr(given, "tolist") else given
    return [*given] if isinstance(given, Iterable) and not isinstance(given, str) else given


def _seeds(seed: Seed, batch: int) -> int | list[int] | None:
    listed = _listed(seed)
    if listed is None:
        return None
    allowed = "allowed are whole numbers from 0 to 2^32 - 1"
    if not isinstance(listed, list):
        return check_whole("seed", listed, 0, 2**32 - 1, allowed)
    if len(listed) != batch:
        given = f"{len(listed)} seeds for {batch} labels"
        raise ArgumentError("seed", given, "one for each is needed")
    return [check_whole("seed", value, 0, 2**32 - 1, allowed) for value in listed]
