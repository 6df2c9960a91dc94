"""Training: learns, repeats itself, and leaves the caller's generator alone."""

import torch

from benchmarks.studies.quality.classifier_training import train_classifier


def stripes(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal (class 0) and vertical (class 1) stripes, with some noise."""
    labels = torch.arange(n) % 2
    wave = torch.arange(28).float().sin().repeat(28, 1)
    images = torch.where(labels[:, None, None] == 0, wave.T, wave).unsqueeze(1)
    draws = torch.Generator().manual_seed(0)
    return (images + 0.3 * torch.randn(images.shape, generator=draws)).clamp(-1, 1), labels


def test_training_learns_repeatably_without_touching_the_generator():
    images, labels = stripes(100)
    state = torch.get_rng_state()
    losses = []
    first = train_classifier(
        images, labels, epochs=3, batch=20, progress=lambda _, loss: losses.append(loss)
    )
    assert torch.equal(torch.get_rng_state(), state)
    again = train_classifier(images, labels, epochs=3, batch=20)
    other = train_classifier(images, labels, epochs=1, batch=20, seed=1)

    assert not first.training
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (first.judge(images).logits.argmax(1) == labels).float().mean() > 0.95
    logits = first.judge(images).logits
    assert torch.equal(logits, again.judge(images).logits)
    assert not torch.equal(logits, other.judge(images).logits)
