"""From labels to images: the model that `marfast.load` returns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast import profiling
from marfast.checkpoints import Report, Settings
from marfast.errors import check_whole
from marfast.generation import randomness
from marfast.generation.arguments import (
    Images,
    Labels,
    Seed,
    check_labels,
    check_seeds,
    labels_of,
)
from marfast.generation.edit import edit
from marfast.generation.generated import Generated
from marfast.generation.outpaint import outpaint
from marfast.generation.progress import Progress, Step, reporting
from marfast.generation.provenance import Making, Provenance
from marfast.generation.randomness import randomness_of_parts
from marfast.generation.sample import sample_tokens
from marfast.generation.schedules import schedules_of
from marfast.generation.start import Start
from marfast.model.mar import FastMAR
from marfast.model.restricted import is_sequence
from marfast.model.tokenizer import Tokenizer

PART_MEMORY = 1 << 30  # bytes of activations that one part of a batch may take, about
ACTIVATIONS = 16  # vectors of the transformer's width that are live for each position, about


class _Plan(NamedTuple):
    """Arguments of a generation, checked."""

    labels: Tensor
    seed: int | list[int] | None
    settings: Settings
    part: int
    making: Making


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

    def __repr__(self) -> str:
        """What it is, on a line; its settings on the next."""
        module, report = self.model.module, self.report
        name = (report and report.name) or type(module).__name__
        count = sum(parameter.numel() for parameter in module.parameters())
        made = "images" if self.makes_images else "latents"
        dtype = str(self.model.dtype or torch.float32).removeprefix("torch.")
        settings = ", ".join(f"{name} {value}" for name, value in vars(self.settings).items())
        return (
            f"<marfast.Pipeline {name}: {made} [{self.channels}, {self.side}, {self.side}] of "
            f"{module.num_classes} classes, {count / 1e6:.1f} M parameters, {dtype} on "
            f"{self.model.device}\n {settings}>"
        )

    @property
    def makes_images(self) -> bool:
        """Whether `generate` returns images in [−1, 1], and neither a tokenizer's latents nor
        vectors: tokens are pixels, or there is a tokenizer."""
        module = self.model.module
        makes_pixels = bool(module.vae_stride == 1) and not is_sequence(module)
        return self.tokenizer is not None or makes_pixels

    @property
    def largest_part(self) -> int:
        """How many images are computed at a time unless told otherwise: what memory allows."""
        module = self.model.module
        width = max(module.decoder_pos_embed_learned.shape[2], module.encoder_norm.weight.shape[0])
        positions = module.seq_len + module.buffer_size
        image = 2 * positions * width * ACTIVATIONS * module.mask_token.element_size()
        return max(1, int(PART_MEMORY // image))

    @property
    def side(self) -> int:
        """Of what `generate` returns: pixels, or a tokenizer's latents."""
        module = self.model.module
        token = module.patch_size * (1 if self.tokenizer is None else self.tokenizer.stride)
        return int(module.seq_h * token)

    @property
    def channels(self) -> int:
        """Of what `generate` returns."""
        return 3 if self.tokenizer is not None else int(self.model.module.vae_embed_dim)

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
        sampler: str | None = None,
        eta: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        part: int | None = None,
        progress: bool | Progress | None = None,
        callback: Callable[[Step], None] | None = None,
        **unknown: Any,
    ) -> Generated:
        """Generate images [B, C, H, W] in [−1, 1], one for each label (latents, not clamped, where
        the model makes latents and has no tokenizer).

        labels: class indices, as Python's, NumPy's or torch's integers, or names out of `classes`;
            None in their place makes an image of no class.
        seed: one for the batch gives what seeding numpy and torch with it and one `sample_tokens`
            of the whole batch gives; a sequence, one for each image, makes images independent of
            their batch; None draws from the global generators, which a seed leaves alone.
        num_iter, steps, cfg, cfg_schedule, temperature, sampler, eta, guidance_interval: as in
            `Settings`; None takes the model's.
        part: how many images to compute at a time; None chooses by memory. It never changes which
            random number goes where.
        progress: True for a bar (tqdm), or what is called with (done, of) iterations.
        callback: called after each iteration with a `Step`, whose `preview()` is what the images
            are so far. What it raises ends the generation.

        The result is a tensor that a notebook shows, and that `marfast.save` stores with what made
        it.

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
            sampler=sampler,
            eta=eta,
            guidance_interval=guidance_interval,
            part=part,
            progress=progress,
            callback=callback,
            **unknown,
        )
        parts = [*images]
        return parts[0].joined(parts)

    def generate_parts(
        self,
        labels: Labels,
        *,
        seed: Seed = None,
        part: int | None = None,
        first: int = 0,
        count: int | None = None,
        progress: bool | Progress | None = None,
        callback: Callable[[Step], None] | None = None,
        **settings: Any,
    ) -> Iterator[Generated]:
        """`generate`, part by part, for whoever stores images as they come.

        first, count: which images of the batch are wanted; None is all that follow. They are
            computed in the parts that they are in for the whole batch, so to the same bits.
        """
        plan = self._planned(labels, seed, part, settings)
        batch, size = len(plan.labels), plan.part
        allowed = f"allowed are 0 to {batch}, the number of labels"
        first = check_whole("first", first, 0, batch, allowed)
        allowed = f"allowed are 0 to {batch - first}, the number of labels from {first} on"
        count = batch - first if count is None else check_whole("count", count, 0, batch, allowed)
        wanted = range(first, first + count)
        starts = range(first // size * size, wanted.stop, size) if wanted else ()
        parts = [range(i, min(i + size, batch)) for i in starts]
        run = self._run(plan, parts, progress, callback)
        return (images.within(wanted) for images in run)

    def provenance(
        self, labels: Labels, *, seed: Seed = None, part: int | None = None, **settings: Any
    ) -> Provenance:
        """What files of the images of such a `generate` say of them, but for the backends."""
        plan = self._planned(labels, seed, part, settings)
        return plan.making.of(0, len(plan.labels))

    def _planned(
        self, labels: Labels, seed: Seed, part: int | None, settings: dict[str, Any]
    ) -> "_Plan":
        module = self.model.module
        indices = check_labels(labels, module.num_classes, self.classes)
        seeds = check_seeds(seed, len(indices))
        chosen = self.settings.replace(module.seq_len, **settings)
        size = self.largest_part if part is None else check_whole("part", part, 1)
        making = Making(self, "generate", labels_of(indices), seeds, chosen, size)
        return _Plan(indices.to(self.model.device), seeds, chosen, size, making)

    def edit(
        self,
        images: Images,
        mask: Images,
        labels: Labels | None = None,
        *,
        seed: Seed = None,
        num_iter: int | None = None,
        grow: int | None = None,
        feather: int = 0,
        part: int | None = None,
        progress: bool | Progress | None = None,
        **settings: Any,
    ) -> Tensor:
        """Images with what a mask says made anew, and all else as it was, bit for bit.

        images: [B, C, H, W], as `generate` returns them; or tokens [B, L, C] (then so is the
            result).
        mask: [B, H, W] or [B, 1, H, W], of tokens [B, L]; nonzero is made anew. A token is unknown
            if any of its pixels is. Each image may have another number of unknown tokens; one
            without any is returned as it is.
        labels: one for each image, or one for all; None is no class.
        seed: as for `generate`, to which an edit of whole images is equal. Images with equally many
            unknown tokens are made together, and one seed for the batch goes from one such group to
            the next.
        num_iter: iterations, of which an image takes at most one for each unknown token; None takes
            the model's in proportion to the unknown tokens.
        grow: how many more tokens round the unknown ones are made anew, which only show inside the
            mask; None is 1 with a tokenizer, whose tokens see their neighbours' pixels, 0 without.
        feather: how many pixels inside the mask's edge go over from the original into what is made.
        part, progress: as for `generate`.
        settings: steps, cfg and the others of `generate`.

        Raises ArgumentError, a ValueError, before any work.
        """
        return edit(
            self,
            images,
            mask,
            grow,
            feather,
            labels,
            seed=seed,
            num_iter=num_iter,
            part=part,
            progress=progress,
            settings=settings,
        )

    def outpaint(
        self,
        images: Images,
        labels: Labels | None = None,
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        overlap: int | None = None,
        seed: Seed = None,
        num_iter: int | None = None,
        grow: int | None = None,
        part: int | None = None,
        progress: bool | Progress | None = None,
        **settings: Any,
    ) -> Tensor:
        """Images with more on their sides.

        images: [B, C, H, W] of any size; with the sides at least as large as what `generate`
            returns.
        left, right, top, bottom: how many pixels to make there; a negative number takes pixels
            away, so that the content is shifted.
        overlap: pixels that a window shares with what is known before it; None is about half of
            what `generate` returns.

        What is wider than the model's images is made in windows of their size, each an `edit`. The
        other arguments and errors are those of `edit`.
        """
        return outpaint(
            self,
            images,
            {"left": left, "right": right, "top": top, "bottom": bottom},
            overlap,
            grow,
            labels,
            seed=seed,
            num_iter=num_iter,
            part=part,
            progress=progress,
            settings=settings,
        )

    def _run(
        self,
        plan: "_Plan",
        parts: Sequence[range],
        progress: bool | Progress | None,
        callback: Callable[[Step], None] | None,
    ) -> Iterator[Generated]:
        labels, seed, settings, _, making = plan
        finished, total = 0, len(parts) * settings.num_iter
        here = iter(parts)

        with reporting(progress, total) as report:

            def told(done: int, of: int) -> None:
                nonlocal finished
                finished += 1
                report(finished, total)

            def step(images: range, done: int, tokens: Tensor) -> None:
                assert callback is not None
                callback(Step(done, settings.num_iter, images, tokens.clone(), self.images_of))

            watch = None if callback is None else step
            for tokens in self.sample(labels, seed, parts, settings, told, making, watch=watch):
                with making.watched():
                    images = self.images_of(tokens)
                yield Generated.of(images, making, next(here).start, self.makes_images)

    def sample(
        self,
        labels: Tensor,
        seed: randomness.Seed | Sequence[randomness.Seed],
        parts: Sequence[range],
        settings: Settings,
        progress: Progress,
        making: Making | None,
        start: Start | None = None,
        watch: Callable[[range, int, Tensor], None] | None = None,
    ) -> Iterator[Tensor]:
        """Tokens [images, L, C] of each part of a batch with labels [B], in turn; of a `start`, the
        whole batch's. `watch` is told of a part after each iteration, and of its tokens."""
        schedules = schedules_of(self.model, settings)
        random_parts = randomness_of_parts(seed, len(labels), parts, self.model.device)
        for rows, of_part in zip(parts, random_parts, strict=True):
            part = slice(rows.start, rows.stop)
            known = None if start is None else start[part]
            seen = None if watch is None else partial(watch, rows)
            with torch.no_grad(), making.watched() if making else nullcontext():
                tokens = sample_tokens(
                    self.model, labels[part], of_part, settings, schedules, progress, known, seen
                )
            yield tokens

    @torch.no_grad()
    def images_of(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, C] -> what `generate` returns."""
        images: Tensor = self.model.module.unpatchify(tokens)
        if self.tokenizer is not None:
            with profiling.range("vae", len(images)):
                images = self.tokenizer.decode(images)
        return images.clamp(-1, 1) if self.makes_images else images

    @torch.no_grad()
    def encoded(self, images: Tensor) -> Tensor:
        """What `generate` returns -> pixels or latents, of which tokens are patches."""
        if self.tokenizer is None:
            return images
        with profiling.range("vae", len(images)):
            return self.tokenizer.encode(images).to(self.model.device)
