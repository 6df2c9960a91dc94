"""Shards in each format: what is read is what was written, and damage is named."""

import io
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from marfast.evaluation.run import Kind
from marfast.evaluation.shards import (
    FORMATS,
    UnreadableShard,
    check_shard,
    read_shard,
    shard_files,
)
from tests.evaluation.runs import RUN

IDS = range(5, 10)
LABELS = [5, 6, 7, 8, 9]


def pixels(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, channels), np.uint8)


def write(folder: Path, kind: Kind, channels: int = 1) -> Path:
    run = replace(RUN, kind=kind, channels=channels)
    file = shard_files(folder, run)[1]
    FORMATS[kind].write(file, IDS, LABELS, pixels(channels))
    return file


def contents(path: Path) -> list[bytes]:
    return [p.read_bytes() for p in ([*sorted(path.iterdir())] if path.is_dir() else [path])]


def test_every_kind_of_images_has_a_format() -> None:
    assert {*FORMATS} == {*get_args(Kind)} - {"none"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_shard_is_read_as_it_was_written(tmp_path: Path, kind: Kind, channels: int) -> None:
    run = replace(RUN, kind=kind, channels=channels)
    file = write(tmp_path, kind, channels)
    check_shard(file, run, IDS)
    assert np.array_equal(read_shard(file, run, IDS), pixels(channels))
    (tmp_path / "again").mkdir()
    assert contents(write(tmp_path / "again", kind, channels)) == contents(file)


def test_a_tar_is_what_webdataset_reads(tmp_path: Path) -> None:
    with tarfile.open(write(tmp_path, "tar")) as archive:
        names = archive.getnames()
        assert names[:2] == ["000000005.png", "000000005.cls"]
        assert len(names) == 10
        label = archive.extractfile("000000007.cls")
        assert label is not None
        assert label.read() == b"7"
        image = archive.extractfile("000000007.png")
        assert image is not None
        decoded = np.asarray(Image.open(io.BytesIO(image.read())))
    assert np.array_equal(decoded, pixels(1)[2, ..., 0])


def test_an_npz_is_what_adms_evaluator_reads(tmp_path: Path) -> None:
    with np.load(write(tmp_path, "npz", 3)) as stored:
        assert stored["arr_0"].dtype == np.uint8
        assert np.array_equal(stored["arr_0"], pixels(3))
        assert stored["arr_1"].tolist() == LABELS


@pytest.mark.parametrize("kind", ["tar", "npz"])
@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_a_cut_shard_is_named(tmp_path: Path, kind: Kind, share: float) -> None:
    run = replace(RUN, kind=kind)
    file = write(tmp_path, kind)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    for look in (check_shard, read_shard):
        with pytest.raises(UnreadableShard, match=f"{file.name}.*remove it"):
            look(file, run, IDS)


def test_a_missing_image_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path, "png")
    next(file.glob("*.png")).unlink()
    with pytest.raises(UnreadableShard, match="4 images of 5"):
        check_shard(file, replace(RUN, kind="png"), IDS)


def test_a_damaged_image_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path, "png")
    next(file.glob("*.png")).write_bytes(b"no image")
    with pytest.raises(UnreadableShard, match="not readable"):
        read_shard(file, replace(RUN, kind="png"), IDS)


def in_tar(folder: Path, kind: bytes) -> Path:
    """The first image isn't a file, but a folder or a link to itself."""
    file = write(folder, "tar")
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for i in IDS:
            entry = tarfile.TarInfo(f"{i}.png")
            if i == 5:
                entry.type, entry.linkname = kind, entry.name
            archive.addfile(entry, io.BytesIO())
    return file


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_what_is_no_file_in_a_tar_is_no_image(tmp_path: Path, kind: bytes) -> None:
    file = in_tar(tmp_path, kind)
    with pytest.raises(UnreadableShard, match="4 images of 5"):
        check_shard(file, RUN, IDS)
    with pytest.raises(UnreadableShard, match=r"00001\.tar.*remove it"):
        read_shard(file, RUN, IDS)


def test_an_array_alone_is_no_npz(tmp_path: Path) -> None:
    file = write(tmp_path, "npz")
    with file.open("wb") as bare:
        np.save(bare, pixels(1))
    for look in (check_shard, read_shard):
        with pytest.raises(UnreadableShard, match="not readable"):
            look(file, replace(RUN, kind="npz"), IDS)


def test_a_damaged_compressed_npz_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "npz")
    np.savez_compressed(file, arr_0=pixels(1), arr_1=LABELS)
    data = bytearray(file.read_bytes())
    data[80:180] = b"\xff" * 100
    file.write_bytes(data)
    with pytest.raises(UnreadableShard, match="not readable"):
        read_shard(file, replace(RUN, kind="npz"), IDS)


@pytest.mark.parametrize("error", [Image.DecompressionBombError, SyntaxError, zlib.error])
def test_what_pillow_raises_names_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def damaged(*_: object) -> None:
        raise error("damaged")

    file = write(tmp_path, "tar")
    monkeypatch.setattr(Image, "open", damaged)
    with pytest.raises(UnreadableShard, match=r"00001\.tar: not readable \(damaged"):
        read_shard(file, RUN, IDS)


def test_images_of_another_size_are_noticed(tmp_path: Path) -> None:
    file = write(tmp_path, "npz", 3)
    with pytest.raises(UnreadableShard, match=r"images of uint8 \[28, 28, 3\]"):
        read_shard(file, replace(RUN, kind="npz"), IDS)


def test_numbers_that_are_no_pixels_are_noticed(tmp_path: Path) -> None:
    file = write(tmp_path, "npz")
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, arrays["arr_0"] / np.float32(255), arrays["arr_1"])
    with pytest.raises(UnreadableShard, match=r"images of float32 \[28, 28, 1\]"):
        read_shard(file, replace(RUN, kind="npz"), IDS)
