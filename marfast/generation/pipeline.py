"""From labels to images: the model that `marfast.load` returns."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marfast.generation import publishing
from marfast.generation.arguments import Images, Labels, Seed, check_labels
from marfast.generation.batch import Batch
from marfast.generation.edit import edit
from marfast.generation.generated import Generated
from marfast.generation.loaded import Loaded
from marfast.generation.outpaint import outpaint
from marfast.generation.parts import image_parts
from marfast.generation.progress import Progress, Step
from marfast.generation.provenance import Provenance


class Pipeline(Loaded):
    """A loaded model, and all that is made with it. `settings` are its defaults, `classes` its
    labels' names where known, `report` tells what was read from which file.

    `model` is the thin model, `model.module` the `reference.MAR` that holds the parameters;
    `tokenizer` turns its latents into images, where they are latents and it was given one.
    """

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

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the model, and the tokenizer if it has a method `to`."""
        self.model.module.to(device)
        if move := getattr(self.tokenizer, "to", None):
            move(device)
        return self

    def save(self, out: str | Path, *, dtype: str = "float32", force: bool = False) -> None:
        """Write the model as it is now, which `marfast.load(out)` then loads without more.

        out: a folder, for config.json (settings and classes, too) and model.safetensors, or one
            .safetensors.
        dtype: of the weights: "float32", "float16" or "bfloat16".
        force: replace what an earlier `save` wrote.

        Errors as of `marfast.checkpoints.convert`.
        """
        publishing.save(self, out, dtype, force)

    def push(
        self,
        repository: str,
        *,
        dtype: str = "float32",
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a model of marfast",
    ) -> str:
        """Put such a folder into a repository "owner/name" of the Hugging Face Hub, made if it
        isn't there, and return the commit's address. Once downloaded, `marfast.load("owner/name")`
        loads it.

        private, token, commit_message: as huggingface_hub takes them, which has to be installed.

        Raises ArgumentError and ImportError before anything is sent, then huggingface_hub's errors.
        """
        return publishing.push(self, repository, dtype, private, token, commit_message)

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
        batch = self._batch(labels, seed, part, settings)
        return image_parts(self, batch, batch.wanted(first, count), progress, callback)

    def provenance(
        self, labels: Labels, *, seed: Seed = None, part: int | None = None, **settings: Any
    ) -> Provenance:
        """What files of the images of such a `generate` say of them, but for the backends."""
        batch = self._batch(labels, seed, part, settings)
        return batch.making.of(0, len(batch.labels))

    def _batch(
        self, labels: Labels, seed: Seed, part: int | None, settings: dict[str, Any]
    ) -> Batch:
        indices = check_labels(labels, self.model.module.num_classes, self.classes)
        return Batch.of(self, "generate", indices, seed, part, settings)

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
