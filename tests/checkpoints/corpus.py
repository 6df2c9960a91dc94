"""Damaged and hostile checkpoints, made from small valid ones: the same ones each time."""

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import re
import runpy
import struct
import subprocess
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from marfast.checkpoints import Architecture, Preset, Settings
from marfast.checkpoints.presets import LARGEST_CONFIG
from marfast.checkpoints.pth import LARGEST_PICKLE
from marfast.checkpoints.read import METADATA
from tests.models import tiny_weights, training_checkpoint

ARCHITECTURE = Architecture(
    **{"img_size": 16, "vae_stride": 1, "patch_size": 4, "vae_embed_dim": 1},
    **{"encoder_embed_dim": 8, "encoder_depth": 1, "encoder_num_heads": 2},
    **{"decoder_embed_dim": 12, "decoder_depth": 1, "decoder_num_heads": 3},
    **{"class_num": 3, "buffer_size": 1, "diffloss_d": 1, "diffloss_w": 8},
)
PRESET = Preset(ARCHITECTURE, Settings(num_iter=4, steps=3))
WEIGHTS = tiny_weights(ARCHITECTURE)
CONFIG = json.dumps(PRESET.to_dict())
OPTIONS = {"model": "mar_base", "img_size": 256, "num_sampling_steps": "100", "lr": 1e-4}
BOMB = 256 << 20  # bytes; the process that reads the corpus may not have as much


@dataclass(frozen=True)
class Sample:
    """A file, or a folder that holds `files`, to be loaded."""

    kind: str
    name: str
    files: Mapping[str, bytes]
    damaged: bool = False
    """At random, and perhaps where nothing notices: it may load."""
    says: bool = False
    """What it holds, so that no preset is to be given."""

    def write(self, folder: Path) -> Path:
        for name, contents in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
        return folder / self.name


def samples(marker: Path) -> Iterator[Sample]:
    """All of them. `marker`: the file that code in them would write, if it ran."""
    yield from _damaged()
    for kind, data in [*_code(marker), *_pickles(), *_archives()]:
        yield Sample(kind, "a.pth", {"a.pth": data})
    for kind, data in [*_headers(), *_weights()]:
        yield Sample(kind, "a.safetensors", {"a.safetensors": data})
    for kind, config in _configs():
        yield _folder(kind, config)
        inside = save(WEIGHTS, {METADATA: config.decode(errors="replace")})
        yield Sample(f"{kind} inside", "a.safetensors", {"a.safetensors": inside}, says=True)
    for data in _options():
        yield Sample("options", "a.pth", {"a.pth": data}, says=True)
    yield from _misnamed()


# ---- random damage


def _damaged() -> Iterator[Sample]:
    pick = random.Random(0)
    pth, entries = saved(_checkpoint()), _entries(saved(_checkpoint()))
    safetensors = save(WEIGHTS, {METADATA: CONFIG})
    end = 8 + struct.unpack("<Q", safetensors[:8])[0]
    header, body = safetensors[8:end], safetensors[end:]
    for _ in range(300):
        for name, data in (("a.pth", pth), ("a.safetensors", safetensors)):
            yield Sample("bytes", name, {name: _mutated(data, pick)}, damaged=True)
        inside = entries | {"data.pkl": _mutated(entries["data.pkl"], pick)}
        yield Sample("pickle", "a.pth", {"a.pth": _archive(inside)}, damaged=True)
        inside_header = _safetensors(_mutated_json(header, pick), body)
        files = {"a.safetensors": inside_header}
        yield Sample("header", "a.safetensors", files, damaged=True, says=True)
        for change in (_mutated, _mutated_json):
            yield _folder("config", change(CONFIG.encode(), pick), damaged=True)


def _mutated(data: bytes, pick: random.Random) -> bytes:
    """A bit flipped, or some bytes cut out, doubled, overwritten or the last that are left."""
    near_an_end = pick.choice((pick.randrange(2000), -1 - pick.randrange(4000)))
    start = pick.choice((pick.randrange(len(data)), near_an_end % len(data)))
    part = data[start : start + pick.choice((1, 1, 4, 50))]
    flipped = bytes([part[0] ^ 1 << pick.randrange(8)]) + part[1:]
    new = pick.choice((flipped, flipped, b"", part * 2, bytes(len(part)), b"\xff" * len(part)))
    rest = data[start + len(part) :] if pick.random() < 0.9 else b""
    return data[:start] + new + rest


def _mutated_json(data: bytes, pick: random.Random) -> bytes:
    """A number or string that is another."""
    start, end = pick.choice([m.span() for m in re.finditer(rb'"[^"]*"|-?[\d.]+', data)])
    values = (0, -1, 1, 3, 1.5, 1 << 20, 1 << 63, 1 << 64, float("nan"), "x", "", None, True, [])
    return data[:start] + json.dumps(pick.choice(values)).encode() + data[end:]


# ---- valid files, and how to put others together


def saved(contents: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()


def _checkpoint(**entries: Any) -> dict[str, Any]:
    return training_checkpoint(WEIGHTS, WEIGHTS) | entries


def _folder(kind: str, config: bytes, damaged: bool = False) -> Sample:
    files = {"model/config.json": config, "model/model.safetensors": save(WEIGHTS)}
    return Sample(kind, "model", files, damaged, says=True)


def _archive(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these entries in the folder that torch.save would have."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, contents in entries.items():
            file.writestr(f"a/{name}", contents)
    return buffer.getvalue()


def _entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def _safetensors(header: bytes, body: bytes = bytes(4), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


class _Call:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class _Storage(NamedTuple):
    elements: int = 16
    key: str = "0"
    kind: Any = torch.FloatStorage


WHOLE = _Storage()


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            return "storage", value.kind, value.key, "cpu", value.elements
        return None


def _pickled(value: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def _pth(pickled: bytes) -> bytes:
    """An archive of this pickle with one storage "0" of 64 bytes."""
    entries = {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", "data/0": bytes(64)}
    return _archive(entries)


# ---- .pth


def _code(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles whose code would write the marker."""
    write, script = f"open({str(marker)!r}, 'w').close()", f"touch {marker}"
    calls = [
        _Call(os.system, script),
        _Call(os.popen, script),
        _Call(subprocess.call, ["touch", str(marker)]),
        _Call(os.mkdir, str(marker)),
        _Call(open, str(marker), "w"),
        _Call(runpy.run_path, str(marker)),
        _Call(eval, write),
        _Call(exec, write),
        _Call(pickle.loads, pickle.dumps(_Call(os.mkdir, str(marker)))),
    ]
    for call in calls:
        for place in (call, {"model_ema": call}, {"model_ema": {"mask_token": call}}, [call]):
            for protocol in (2, 4):
                yield f"code: {call.call[0].__name__}", _pth(_pickled(place, protocol))
    text = script.encode()
    argument = b"X" + struct.pack("<I", len(text)) + text
    for module in (b"os", b"torch.serialization.os", b"torch.os"):
        yield "code: system", _pth(b"\x80\x02c" + module + b"\nsystem\n" + argument + b"\x85R.")
    yield "code: INST", _pth(b"(S'" + text + b"'\nios\nsystem\n.")
    yield "code: OBJ", _pth(b"(cos\nsystem\nS'" + text + b"'\no.")


def _pickles() -> Iterator[tuple[str, bytes]]:
    """What takes memory or has tensors that its file has not: storage "0" has 16 float32."""

    def tensor(size: Any, stride: Any, offset: int = 0, storage: Any = WHOLE) -> _Call:
        rebuild: Any = torch._utils._rebuild_tensor_v2
        return _Call(rebuild, storage, offset, size, stride, False, OrderedDict())

    far = 1 << 40
    values = {
        "a view past its storage": tensor((17,), (1,)),
        "a view past its storage, by its offset": tensor((16,), (1,), 1),
        "a view before its storage": tensor((16,), (1,), -1),
        "one number, 2^40 times": tensor((far,), (0,)),
        "more elements than can be counted": tensor((far, far), (0, 0)),
        "65 dimensions": tensor((1,) * 65, (1,) * 65),
        "a storage of no elements": tensor((16,), (1,), storage=_Storage(0)),
        "a storage of -1 elements": tensor((16,), (1,), storage=_Storage(-1)),
        "a storage of bytes": tensor((16,), (1,), storage=_Storage(kind=torch.UntypedStorage)),
        "a storage that is not there": tensor((16,), (1,), storage=_Storage(key="1")),
        "a storage outside": tensor((16,), (1,), storage=_Storage(key="../data.pkl")),
        "a large bytearray": _Call(bytearray, far),
        "a large tensor": _Call(torch.FloatTensor, far),
        **{f"odd: {type(odd).__name__}": odd for odd in _odd_objects()},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, value in values.items():
            if "odd" in kind:
                yield kind, saved(_checkpoint(model_ema=WEIGHTS | {"z_proj.bias": value}))
            else:
                yield kind, _pth(_pickled({"mask_token": value}))
    for kind, body in {
        "no end": b"}",
        "an unknown instruction": b"\xff.",
        "what is not in the memo": b"h\5.",
        "a text of 4 GiB": b"X\xff\xff\xff\xffabc.",
        "a number of 2 GiB": b"\x8b\xff\xff\xff\x7f1.",
        "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep tuples": b"K\1" + b"\x85" * 200_000 + b".",
        "a terminal's control characters": b"c\x1b[2J\nx\r\n.",
        "a name of 100,000 letters": b"c" + b"x" * 100_000 + b"\ny\n.",
    }.items():
        yield kind, _pth(b"\x80\x02" + body)
    for contents in (None, [], {}, {1: 2}, {3: torch.zeros(1)}, torch.zeros(1)):
        yield "an entry that is no state_dict", saved(_checkpoint(model_ema=contents))
    for key in ("a\nb", "\x1b[2J", "x" * 100_000):
        yield "an odd key", saved(WEIGHTS | {key: torch.zeros(1)})
    one = torch.zeros(max(value.numel() for value in WEIGHTS.values()))
    views = {key: one[: value.numel()].view(value.shape) for key, value in WEIGHTS.items()}
    yield "one storage for all", saved(views)


def _odd_objects() -> Iterator[Any]:
    """Things that torch.save writes and that aren't weights."""
    yield from (torch.zeros(32, device="meta"), torch.zeros(32).to_sparse(), nn.Linear(2, 2))
    yield from (torch.quantize_per_tensor(torch.zeros(32), 0.1, 0, torch.qint8), torch.Size([1]))
    yield from ({1, 2}, 1j, b"bytes", "text", None, [torch.zeros(32)])
    with contextlib.suppress(RuntimeError, AttributeError, TypeError):
        yield torch.nested.nested_tensor([torch.zeros(3), torch.zeros(5)])


def _options() -> Iterator[bytes]:
    """Options of the original's training that make no model, or one of other weights."""
    doubled: Any = ()
    for _ in range(100):
        doubled = [doubled, doubled]
    for option in ("model", "img_size", "diffloss_w", "num_sampling_steps"):
        for value in (0, -1, 1 << 20, 1 << 70, 1.5, float("nan"), "x", None, True, {}, doubled):
            yield saved(_checkpoint(args=argparse.Namespace(**OPTIONS | {option: value})))


def _archives() -> Iterator[tuple[str, bytes]]:
    good = _entries(saved(_checkpoint()))
    yield "compressed", _archive(good, zipfile.ZIP_DEFLATED)
    yield "a pickle too large", _archive(good | {"data.pkl": bytes(LARGEST_PICKLE + 1)})
    yield "TorchScript", _archive(good | {"constants.pkl": b"", "code/a.py": b""})
    yield "two pickles", _archive({"DATA.PKL": pickle.dumps({}, protocol=2)} | good)
    yield "empty", _archive({})
    for left_out in ("data.pkl", "data/0"):
        rest = {name: data for name, data in good.items() if name != left_out}
        yield f"no {left_out}", _archive(rest)
    for place in ("data.pkl", "data/0", "byteorder"):
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
            file.open(f"a/{place}", "w") as entry,
        ):
            for _ in range(BOMB >> 20):
                entry.write(bytes(1 << 20))
        yield f"a bomb in {place}", buffer.getvalue()
    # In the directory's record of an entry: sizes at 20 and 24, flags at 8.
    whole = _archive(good)
    for record in [i for i in range(len(whole)) if whole.startswith(b"PK\1\2", i)][:5]:
        for at, form, value in ((24, "<I", 1 << 31), (20, "<Q", 1 << 63 | 1 << 31), (8, "<H", 1)):
            changed = bytearray(whole)
            struct.pack_into(form, changed, record + at, value)
            yield f"a directory that has {value} at {at}", bytes(changed)


# ---- .safetensors and config.json


def _headers() -> Iterator[tuple[str, bytes]]:
    def of(shape: list[int], offsets: tuple[int, int], dtype: str = "F32") -> bytes:
        tensor = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        return json.dumps({"mask_token": tensor}).encode()

    for header in (
        *(b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"{} {}"),
        *(of([1], (4, 0)), of([1], (0, 8)), of([1], (0, 1 << 63)), of([1], (0, 1 << 64))),
        *(of([1 << 62, 4], (0, 4)), of([0, 1 << 62], (0, 0)), of([1] * 10_000, (0, 4))),
        *(of([4], (0, 4), "BOOL"), of([1], (0, 4), "F99"), of([1], (4, 8))),
    ):
        yield "header", _safetensors(header)
    for length in (0, 1, 1 << 20, 100_000_001, 1 << 31, 1 << 63, (1 << 64) - 1):
        yield "header length", _safetensors(b"{}", length=length)


def _weights() -> Iterator[tuple[str, bytes]]:
    """Weights that don't fit."""
    for key, value in WEIGHTS.items():
        others = {name: other for name, other in WEIGHTS.items() if name != key}
        yield "missing", save(others)
        yield "renamed", save(others | {f"x.{key}": value})
        yield "reshaped", save(others | {key: value[None].clone()})
        yield "whole numbers", save(others | {key: value.long()})
        for number in ("nan", "inf", "-inf"):
            poisoned = value.clone()
            poisoned.view(-1)[value.numel() // 2] = float(number)
            yield number, save(others | {key: poisoned})


def _configs() -> Iterator[tuple[str, bytes]]:
    texts: Iterable[bytes] = (
        *(b"", b"null", b"[1]", b"\0", b"[" * 100_000, b'{"a":' * 500, b'{"a":1}'),
        *(CONFIG.encode("utf-16"), b'{"\xff": 1}', b'{"a": %s}' % (b"9" * 5000)),
        CONFIG.encode() + b" " * LARGEST_CONFIG,
    )
    for text in texts:
        yield "config", text
    large = {"diffloss_d": 1024} | dict.fromkeys(("img_size", "buffer_size", "diffloss_w"), 65536)
    for name, value in large.items():
        data = PRESET.to_dict()
        data["architecture"][name] = value
        yield "another architecture", json.dumps(data).encode()


def _misnamed() -> Iterator[Sample]:
    good, weights = saved(_checkpoint()), save(WEIGHTS)
    yield Sample("a .pth", "a.safetensors", {"a.safetensors": good})
    yield Sample("a .safetensors", "a.pth", {"a.pth": weights})
    yield Sample("a folder", "a.pth", {"a.pth/x": b""})
    yield Sample("unknown suffix", "a.h5", {"a.h5": good})
    yield Sample("not there", "b.pth", {})
    yield Sample("text", "a.pth", {"a.pth": b"<!DOCTYPE html>"})
    yield Sample("no config", "model", {"model/model.safetensors": weights}, says=True)
    yield Sample("no weights", "model", {"model/config.json": CONFIG.encode()}, says=True)
