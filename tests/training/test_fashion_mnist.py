"""The IDX reader: good files, and each way in which one can be bad."""

import gzip
import struct

import numpy as np
import pytest
import torch

from marfast.training.fashion_mnist import CLASS_NAMES, read_fashion_mnist, to_model_range

IMAGES = "t10k-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"


def idx(values: np.ndarray, magic: int | None = None) -> bytes:
    magic = 0x800 + values.ndim if magic is None else magic
    return struct.pack(f">I{values.ndim}I", magic, *values.shape) + values.tobytes()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    (tmp_path / IMAGES).write_bytes(gzip.compress(idx(pixels), mtime=0))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(np.array([0, 9, 4], np.uint8)), mtime=0))
    return tmp_path


def test_reads_images_and_labels(folder, pixels):
    images, labels = read_fashion_mnist("test", folder)
    assert images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, pixels)
    assert labels.tolist() == [0, 9, 4]


def test_the_folder_can_come_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("MARFAST_FASHION_MNIST", str(folder))
    assert len(read_fashion_mnist("test").images) == 3


def test_a_missing_file_says_where_to_get_it(folder):
    with pytest.raises(FileNotFoundError) as caught:
        read_fashion_mnist("train", folder)
    for part in ("train-images", "dataset-fashion-mnist", "four .gz", "MARFAST_FASHION_MNIST"):
        assert part in str(caught.value)


def test_a_file_instead_of_a_folder_says_so_too(folder):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        read_fashion_mnist("test", folder / IMAGES)


@pytest.mark.parametrize("split", ["t10k", "", None])
def test_an_unknown_split_is_refused(folder, split):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        read_fashion_mnist(split, folder)


GOOD = idx(np.zeros((3, 28, 28), np.uint8))
HUGE = struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (IMAGES, b"", "cannot be read as a gzip|ends after 0 bytes"),
        (IMAGES, b"not a gzip file", "cannot be read as a gzip"),
        (IMAGES, gzip.compress(GOOD, mtime=0)[:-20], "cannot be read as a gzip"),
        (IMAGES, gzip.compress(GOOD, mtime=0)[:40], "cannot be read as a gzip"),
        (IMAGES, gzip.compress(b"", mtime=0), "ends after 0 bytes"),
        (IMAGES, gzip.compress(GOOD[:15], mtime=0), "ends after 15 bytes"),
        (IMAGES, gzip.compress(GOOD[:-1], mtime=0), "2,351 values"),
        (IMAGES, gzip.compress(GOOD + b"\0", mtime=0), "2,353 values"),
        (IMAGES, gzip.compress(HUGE, mtime=0), "0 values"),
        (IMAGES, gzip.compress(idx(np.zeros((0, 28, 28), np.uint8)), mtime=0), "0 values"),
        (
            IMAGES,
            gzip.compress(idx(np.zeros((3, 28, 28), np.uint8), 0x00000D03), mtime=0),
            "magic number",
        ),
        (
            IMAGES,
            gzip.compress(idx(np.zeros((3, 28, 28), np.uint8), 0x01000803), mtime=0),
            "magic number",
        ),
        (IMAGES, gzip.compress(idx(np.zeros(2352, np.uint8)), mtime=0), "magic number"),
        (IMAGES, gzip.compress(idx(np.zeros((3, 32, 32), np.uint8)), mtime=0), "not 28×28"),
        (
            IMAGES,
            gzip.compress(idx(np.zeros((4, 28, 28), np.uint8)), mtime=0),
            "4 test images but 3 labels",
        ),
        (LABELS, gzip.compress(idx(np.array([1, 2, 10], np.uint8)), mtime=0), "label 10"),
        (
            LABELS,
            gzip.compress(idx(np.array([1], np.uint8)), mtime=0),
            "3 test images but 1 labels",
        ),
    ],
)
def test_a_bad_file_gives_one_clear_error(folder, name, raw, message):
    (folder / name).write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        read_fashion_mnist("test", folder)
    assert str(folder) in str(caught.value)


def test_model_range_reaches_both_ends():
    images = to_model_range(np.array([[[0, 51, 255]]], np.uint8))
    assert images.shape == (1, 1, 1, 3)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.ravel(), torch.tensor([-1.0, -0.6, 1.0]))


def test_ten_class_names():
    assert len(set(CLASS_NAMES)) == 10
