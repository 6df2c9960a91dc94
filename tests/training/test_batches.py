"""The order of the data follows from seed and place, and from nothing else."""

import numpy as np
import pytest
import torch

from marfast.errors import ArgumentError
from marfast.training.batches import Batches
from marfast.training.data import Batch
from tests.training.runs import QUICK, images, sequences


def read(batches: Batches, step: int, count: int) -> list[list[Batch]]:
    reader = batches.from_step(step)
    found = [next(reader) for _ in range(count)]
    reader.close()
    return found


def same(first: list[list[Batch]], second: list[list[Batch]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(
        torch.equal(a.items, b.items) and torch.equal(a.labels, b.labels)
        for some, others in pairs
        for a, b in zip(some, others, strict=True)
    )


def test_an_epoch_has_each_item_at_most_once() -> None:
    batches = Batches(images(43), QUICK, range(1), 2)
    assert batches.per_epoch == 5
    orders = [batches.order(epoch) for epoch in range(3)]
    for order in orders:
        assert order.shape == (5, 8)
        assert len({*order.ravel().tolist()}) == 40
    assert not np.array_equal(orders[0], orders[1])


def test_whoever_goes_on_gets_the_same_batches() -> None:
    whole = read(Batches(images(), QUICK, range(1), 3), 0, 12)
    rest = read(Batches(images(), QUICK, range(1), 1), 7, 5)
    assert same(whole[7:], rest)
    other = read(Batches(images(), QUICK.replace(seed=1), range(1), 3), 0, 12)
    assert not same(whole, other)


def test_parts_are_the_batch() -> None:
    settings = QUICK.replace(parts=4, flip=False)
    shares = [
        read(Batches(images(), settings, parts, 1), 3, 2) for parts in (range(3), range(3, 4))
    ]
    [whole] = read(Batches(images(), settings.replace(parts=1), range(1), 1), 3, 1)
    together = torch.cat([of.items for of in (*shares[0][0], *shares[1][0])])
    assert torch.equal(together, whole[0].items)


def test_half_of_the_images_are_mirrored_unless_told_otherwise() -> None:
    plain = Batches(images(400), QUICK.replace(batch=400, flip=False), range(1), 1)
    mirrored = Batches(images(400), QUICK.replace(batch=400), range(1), 1)
    [[a]], [[b]] = read(plain, 0, 1), read(mirrored, 0, 1)
    flipped = [torch.equal(x.flip(-1), y) for x, y in zip(a.items, b.items, strict=True)]
    kept = [torch.equal(x, y) for x, y in zip(a.items, b.items, strict=True)]
    assert all(one or other for one, other in zip(flipped, kept, strict=True))
    assert 150 < sum(flipped) < 250


def test_a_batch_of_sequences_has_few_lengths() -> None:
    data = sequences(400)
    batches = Batches(data, QUICK, range(1), 1)
    assert data.lengths is not None
    order = batches.order(0)
    assert len({*order.ravel().tolist()}) == order.size
    different = np.mean([len({*data.lengths[items].tolist()}) for items in order])
    assert different < 3


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(ArgumentError, match="batch: 8; allowed are up to 7"):
        Batches(images(7), QUICK, range(1), 1)
