"""Training of the Fashion-MNIST classifier: a few minutes on a CPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from marfast.evaluation.classifier import Classifier

SHIFT = 2  # largest shift of the augmentation, in pixels


def train_classifier(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int = 12,
    batch: int = 100,
    learning_rate: float = 4e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Classifier:
    """A classifier trained on images [N, 1, 28, 28] in [-1, 1] with labels [N] in 0–9.

    AdamW with one learning-rate cycle, cross-entropy; each image flipped with probability ½ and
    shifted by up to two pixels each way. ``progress(epoch, mean loss)`` is called after each epoch.
    The same seed, machine and number of threads give the same weights; the caller's generator
    state is left as it was. Returned in evaluation mode.
    """
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier().train()
    _set_layout(classifier, torch.channels_last)  # twice as fast
    optimizer = torch.optim.AdamW(classifier.parameters(), learning_rate, weight_decay=0.02)
    steps = epochs * (len(images) // batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    labels = labels.long()
    for epoch in range(epochs):
        chunks = torch.randperm(len(images), generator=draws).split(batch)
        total = 0.0
        for rows in chunks[: len(images) // batch]:
            logits = classifier(_augment(images[rows], draws)).logits
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
        if progress is not None:
            progress(epoch, total / (len(images) // batch))
    _set_layout(classifier, torch.contiguous_format)
    return classifier.eval()


def _augment(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Images [B, 1, H, W], each flipped and shifted at random."""
    batch, _, height, width = images.shape
    flip = torch.rand(batch, 1, 1, 1, generator=draws) < 0.5
    flipped = torch.where(flip, images.flip(-1), images)
    padded = F.pad(flipped, [SHIFT] * 4, value=-1.0)  # -1 is the background
    top, left = torch.randint(2 * SHIFT + 1, (2, batch, 1), generator=draws)
    image = torch.arange(batch)[:, None, None]
    row = (top + torch.arange(height))[:, :, None]
    column = (left + torch.arange(width))[:, None, :]
    return padded[image, 0, row, column].unsqueeze(1)


def _set_layout(classifier: Classifier, layout: torch.memory_format) -> None:
    """Convolution weights in this memory format, in place."""
    classifier.to(memory_format=layout)  # type: ignore[call-overload]
