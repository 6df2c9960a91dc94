"""The zip archive that torch.save writes: its directory, checked before anything in it is read."""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of the name and of extras
LARGEST_PICKLE = 4 << 20  # bytes; MAR-H's, with AdamW's state, has 280,000


@dataclass(frozen=True)
class Archive:
    """data.pkl, and the size in bytes of every storage by its key."""

    pickle: bytes
    storages: Mapping[str, int]


def read_archive(path: Path) -> Archive:
    """The pickle and the directory of a .pth.

    torch.save stores entries as they are, side by side, under one folder. Anything else is refused
    with a ValueError: compressed or encrypted entries, two of one name, two in the same bytes, one
    that reaches past the end. So no entry is larger than the file.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(
                "not a whole zip archive, which is what torch.save has written since torch 1.6"
            )
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check(entries, file)
            # As torch finds it: the first entry names the folder.
            folder = entries[0].filename.partition("/")[0]
            sizes = {entry.filename.removeprefix(folder + "/"): entry for entry in entries}
            if "constants.pkl" in sizes:
                raise ValueError("is a TorchScript archive: a program, not weights")
            if "data.pkl" not in sizes:
                raise ValueError(f"has no {folder}/data.pkl, which torch.save writes")
            if sizes["data.pkl"].file_size > LARGEST_PICKLE:
                raise ValueError(
                    f"its data.pkl has {sizes['data.pkl'].file_size} bytes; "
                    f"allowed are up to {LARGEST_PICKLE}"
                )
            storages = {
                name.removeprefix("data/"): entry.file_size
                for name, entry in sizes.items()
                if name.startswith("data/")
            }
            return Archive(archive.read(sizes["data.pkl"]), storages)


def _check(entries: list[zipfile.ZipInfo], file: BinaryIO) -> None:
    if not entries:
        raise ValueError("an empty zip archive")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise ValueError("has two entries of one name")
    end_of_file = file.seek(0, 2)
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if not stored or entry.compress_size != entry.file_size:
            raise ValueError(
                f"{entry.filename} is compressed or encrypted; torch.save stores what it is given"
            )
        start = _start_of_data(entry, file)
        if entry.header_offset < end or start + entry.file_size > end_of_file:
            raise ValueError(f"{entry.filename} overlaps another entry or the end of the file")
        end = start + entry.file_size


def _start_of_data(entry: zipfile.ZipInfo, file: BinaryIO) -> int:
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise ValueError(f"{entry.filename} is not where the directory says")
    _, name, extra = LOCAL_HEADER.unpack(header)
    return int(entry.header_offset + LOCAL_HEADER.size + name + extra)
