"""Editing: what masks say of tokens, tokens made anew, and pixels put back round them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.generation.arguments import (
    Images,
    Labels,
    Seed,
    check_amount,
    check_labels_of,
    check_mask,
    check_range,
    check_tensor,
)
from marfast.generation.batch import Batch
from marfast.generation.generated import Generated
from marfast.generation.loaded import Loaded
from marfast.generation.parts import parts_of, sample_parts
from marfast.generation.progress import Progress, reporting
from marfast.generation.provenance import Maker
from marfast.generation.randomness import Generators
from marfast.generation.start import groups


def token_mask(mask: Tensor, sides: Sequence[int], grow: int) -> Tensor:
    """The tokens with any pixel in a mask [B, H, W] (bool), and those up to `grow` tokens away, of
    a grid of `sides` rows and columns -> [B, L]."""
    rows, columns = sides
    images, height, width = mask.shape
    cells = mask.view(images, rows, height // rows, columns, width // columns)
    tokens = cells.any(dim=4).any(dim=2)
    if grow:
        tokens = F.max_pool2d(tokens[:, None].float(), 2 * grow + 1, 1, grow)[:, 0] > 0
    return tokens.flatten(1)


def paste(original: Tensor, made: Tensor, mask: Tensor, feather: int) -> Tensor:
    """The original's pixels outside the mask [B, H, W] (bool), what was made inside, and the way
    from one to the other in the mask's outermost `feather` pixels; images [B, C, H, W]."""
    outside = (~mask[:, None]).to(original)
    inside = [
        F.max_pool2d(outside, 2 * away + 1, 1, away) == 0 for away in range(feather + 1)
    ]  # no pixel of the outside so near
    share = torch.stack(inside).float().mean(dim=0)
    between = original + share * (made - original)
    return torch.where(inside[-1], made, torch.where(inside[0], between, original))


class Editor:
    """Edits of one batch by one model: the arguments that they share, checked. Each edit goes on
    with the random numbers where the one before has left them."""

    def __init__(
        self,
        loaded: Loaded,
        images: int,
        labels: Labels | None,
        seed: Seed,
        num_iter: int | None,
        part: int | None,
        progress: bool | Progress | None,
        settings: dict[str, Any],
        command: Maker = "edit",
    ):
        self.loaded, self.device, self.num_iter = loaded, loaded.model.device, num_iter
        classes = loaded.model.module.num_classes
        indices = check_labels_of(images, labels, classes, loaded.classes)
        settings = {"num_iter": num_iter, **settings}
        self.batch = Batch.of(loaded, command, indices, seed, part, settings)
        self.progress, self.done, self.iterations = progress, 0, 0
        seeds = self.batch.seed
        self.source: Generators | list[Generators]
        if isinstance(seeds, list):
            self.source = [Generators.of(of_image, self.device) for of_image in seeds]
        else:
            self.source = Generators.of(seeds, self.device)

    def expect(self, unknown: Tensor) -> None:
        """Count an edit of the tokens unknown [B, L] for what `progress` is told."""
        for images, start in groups(unknown[..., None], unknown):
            each = start.settings(self.batch.settings, self.num_iter).num_iter
            self.iterations += each * len(parts_of(len(images), self.batch.part))

    def tokens(self, tokens: Tensor, unknown: Tensor) -> Tensor:
        """Tokens [B, L, C] with those of `unknown` [B, L] made anew."""
        result = tokens.clone()
        for images, made in self._made(tokens, unknown):
            result[images] = made
        return result

    def images(self, images: Tensor, mask: Tensor, unknown: Tensor, feather: int = 0) -> Tensor:
        """Images [B, C, H, W] with the pixels of `mask` [B, H, W], which lie in the tokens of
        `unknown` [B, L], made anew."""
        result = images.clone()
        for rows, made in self._made(self._known(images, unknown), unknown):
            to_paste = mask[rows].to(self.device)
            result[rows] = paste(images[rows], self.loaded.images_of(made), to_paste, feather)
        return result

    def _known(self, images: Tensor, unknown: Tensor) -> Tensor:
        """Their tokens [B, L, C]; zeros where all are known or none is."""
        module = self.loaded.model.module
        tokens = images.new_zeros(*unknown.shape, module.token_embed_dim)
        partly = unknown.any(dim=1) & ~unknown.all(dim=1)
        if partly.any():
            rows = partly.to(self.device)
            encoded = module.patchify(self.loaded.encoded(images[rows]))
            tokens[rows] = encoded.to(tokens.dtype)
        return tokens

    def _made(self, tokens: Tensor, unknown: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Some images at a time, and all their tokens."""
        for images, start in groups(tokens, unknown):
            parts = parts_of(len(images), self.batch.part)
            made = sample_parts(
                self.loaded,
                self.batch.labels[images],
                self.source
                if isinstance(self.source, Generators)
                else [self.source[image] for image in images],
                parts,
                start.settings(self.batch.settings, self.num_iter),
                self._told,
                self.batch.making,
                start,
            )
            for rows, of_part in zip(parts, made, strict=True):
                yield images[rows.start : rows.stop], of_part

    @contextmanager
    def running(self) -> Iterator[None]:
        """Progress is told inside, when all edits are expected."""
        with reporting(self.progress, self.iterations) as self._report, self.batch.making.watched():
            yield

    def _told(self, done: int, of: int) -> None:
        self.done += 1
        self._report(self.done, self.iterations)


@torch.no_grad()
def edit(
    loaded: Loaded,
    images: Images,
    mask: Images,
    grow: int | None,
    feather: int,
    labels: Labels | None,
    **arguments: Any,
) -> Tensor:
    """`Pipeline.edit`; the other arguments are the `Editor`'s."""
    module, side = loaded.model.module, loaded.side
    as_tokens = ("B", module.seq_len, module.token_embed_dim)
    as_images = ("B", loaded.channels, side, side)
    given = check_tensor("images", images, [as_images, as_tokens])
    batch, are_tokens = len(given), given.dim() == 3
    if loaded.makes_images and not are_tokens:
        check_range("images", given)
    wanted = [(batch, side, side), (batch, 1, side, side)]
    found = check_mask(mask, [(batch, module.seq_len)] if are_tokens else wanted)
    if grow is None:
        grow = int(loaded.tokenizer is not None and not are_tokens)
    grow = check_amount("grow", grow, module.seq_h, side)
    feather = check_amount("feather", feather, module.seq_h, side)
    if feather and are_tokens:
        raise ArgumentError("feather", feather, "allowed is 0 where tokens are given")
    editor = Editor(loaded, batch, labels, **arguments)
    sides = module.seq_h, module.seq_w
    given = given.to(editor.device)
    if are_tokens:
        unknown = token_mask(found.view(batch, *sides), sides, grow)
        editor.expect(unknown)
        with editor.running():
            return editor.tokens(given, unknown)
    pixels = found.view(batch, side, side)
    unknown = token_mask(pixels, sides, grow)
    editor.expect(unknown)
    with editor.running():
        edited = editor.images(given, pixels, unknown, feather)
    return Generated.of(edited, editor.batch.making, viewable=loaded.makes_images)
