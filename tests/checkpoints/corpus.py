"""Damaged and hostile checkpoints, made from small valid ones: the same ones each time."""

import argparse
import contextlib
import copy
import io
import json
import os
import pickle
import random
import runpy
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from marfast.checkpoints import Architecture, Preset, Settings
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
    """Files to be loaded. `harmless`: damage that may go unnoticed, such as another finite number.

    name: a file's name, or a folder's that holds `files`.
    """

    kind: str
    name: str
    files: Mapping[str, bytes]
    harmless: bool = False
    says: bool = False
    """The files say what they hold, so that no preset is to be given."""

    def write(self, folder: Path) -> Path:
        for name, contents in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
        return folder / self.name


def samples(marker: Path) -> Iterator[Sample]:
    """All of them. `marker`: the file that code in them would write, if it ran."""
    yield from _archives()
    yield from _bytes(saved(checkpoint()), "a.pth", cuts=150, flips=200)
    yield from _bytes(save(WEIGHTS), "a.safetensors", cuts=100, flips=150)
    yield from _pickles(marker)
    yield from _weights()
    yield from _headers()
    yield from _options()
    yield from _configs()
    yield from _misnamed()


# ---- valid files, and how to put others together


def saved(contents: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(contents, buffer, **options)
    return buffer.getvalue()


def checkpoint(weights: Mapping[str, Tensor] = WEIGHTS) -> dict[str, Any]:
    return training_checkpoint(weights, weights)


def archive(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these entries in the folder that torch.save would have."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as file:
        warnings.simplefilter("ignore")
        for name, contents in entries.items():
            file.writestr(f"a/{name}", contents)
    return buffer.getvalue()


def bomb(place: str) -> bytes:
    """An archive of a few hundred kilobytes whose one entry unpacks to BOMB bytes."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(f"a/{place}", "w") as entry,
    ):
        for _ in range(BOMB >> 20):
            entry.write(bytes(1 << 20))
    return buffer.getvalue()


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def pth(pickled: bytes, **entries: bytes) -> bytes:
    """An archive of this pickle with one storage "0" of 64 bytes."""
    extra = {name.replace("__", "/"): contents for name, contents in entries.items()}
    plain = {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", "data/0": bytes(64)}
    return archive(plain | extra)


def safetensors(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


# ---- bytes cut off and flipped


def _bytes(data: bytes, name: str, cuts: int, flips: int) -> Iterator[Sample]:
    pick = random.Random(name)
    ends = {0, 1, 7, 8, 9, 100, len(data) - 1, len(data) - 21, len(data) - 22, len(data) - 23}
    for end in sorted(ends | {i * len(data) // cuts for i in range(cuts)}):
        yield Sample("cut", name, {name: data[:end]})
    # A flip anywhere, and in the first and last bytes, where headers and directories are.
    places = [pick.randrange(len(data)) for _ in range(flips // 2)]
    places += [pick.randrange(2000) for _ in range(flips // 4)]
    places += [len(data) - 1 - pick.randrange(4000) for _ in range(flips // 4)]
    for place in places:
        yield Sample("flip", name, {name: _flip(data, place, pick)}, harmless=True)


def _flip(data: bytes, place: int, pick: random.Random) -> bytes:
    flipped = bytearray(data)
    flipped[place] ^= 1 << pick.randrange(8)
    return bytes(flipped)


# ---- zip archives


def _archives() -> Iterator[Sample]:
    good = entries_of(saved(checkpoint()))
    nothing = pickle.dumps({}, protocol=2)

    def sample(kind: str, data: bytes) -> Sample:
        return Sample(f"archive: {kind}", "a.pth", {"a.pth": data})

    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield sample(f"compressed by method {method}", archive(good, method))
    for place in ("data.pkl", "data/0"):
        yield sample(f"a bomb in {place}", bomb(place))
    yield sample("a pickle too large", archive(good | {"data.pkl": bytes((4 << 20) + 1)}))
    for left_out in ("data.pkl", "data/0", "data/1"):
        yield sample(f"no {left_out}", archive({k: v for k, v in good.items() if k != left_out}))
    for size in (0, 1, 3, 1 << 20):
        yield sample(f"a storage of {size}", archive(good | {"data/0": bytes(size)}))
    yield sample("empty", archive({}))
    yield sample("TorchScript", archive(good | {"constants.pkl": b"", "code/a.py": b""}))
    yield sample("upper case twin", archive({"DATA.PKL": nothing} | good))
    yield sample("a byte order of neither kind", archive(good | {"byteorder": b"middle"}))
    yield sample("many entries", archive({str(i): b"" for i in range(10_000)}))
    yield sample("unknown alignment", archive(good | {".storage_alignment": b"x"}))
    whole = archive(good)
    twice = io.BytesIO(whole)
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "a") as file:
        warnings.simplefilter("ignore")
        file.writestr("a/data.pkl", nothing)
    yield sample("two pickles", twice.getvalue())

    # The directory's records: sizes at 20 and 24, flags at 8, the place of the data at 42.
    records = [i for i in range(len(whole)) if whole.startswith(b"PK\1\2", i)]
    for record in records[:12]:
        for kind, at, form, value in (
            ("encrypted", 8, "<H", 1),
            ("size 0", 24, "<I", 0),
            ("size of 2 GiB", 24, "<I", 1 << 31),
            ("both sizes of 2 GiB", 20, "<II", (1 << 31, 1 << 31)),
            ("in the first entry's place", 42, "<I", 0),
            ("past the end", 42, "<I", len(whole)),
            ("another method", 10, "<H", 8),
        ):
            changed = bytearray(whole)
            values = value if isinstance(value, tuple) else (value,)
            struct.pack_into(form, changed, record + at, *values)
            if bytes(changed) != whole:
                yield sample(kind, bytes(changed))


# ---- pickles


def _pickles(marker: Path) -> Iterator[Sample]:
    for kind, pickled in [*_code(marker), *_machines(), *_tensors()]:
        yield Sample(f"pickle: {kind}", "a.pth", {"a.pth": pth(pickled)})
    good = entries_of(saved(checkpoint()))
    pick = random.Random("pickles")
    for _ in range(200):  # flips that the archive's checksum doesn't betray
        place = pick.randrange(len(good["data.pkl"]))
        entries = good | {"data.pkl": _flip(good["data.pkl"], place, pick)}
        yield Sample("pickle: flip", "a.pth", {"a.pth": archive(entries)}, harmless=True)
    for end in range(0, len(good["data.pkl"]), 400):
        entries = good | {"data.pkl": good["data.pkl"][:end]}
        yield Sample("pickle: cut", "a.pth", {"a.pth": archive(entries)})
    for protocol in (0, 1, 3, 4, 5):
        data = pickle.dumps({"a": 1}, protocol=protocol)
        yield Sample(f"pickle: protocol {protocol}", "a.pth", {"a.pth": pth(data)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        legacy = saved(WEIGHTS, _use_new_zipfile_serialization=False)
    yield Sample("pickle: before torch 1.6", "a.pth", {"a.pth": legacy})
    for odd in _odd_objects():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = saved(checkpoint() | {"model_ema": WEIGHTS | {"z_proj.bias": odd}})
        yield Sample(f"object: {type(odd).__name__}", "a.pth", {"a.pth": data})


class _Runs:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _code(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles whose code would write the marker."""
    write = f"open({str(marker)!r}, 'w').close()"
    script = f"touch {marker}"
    calls = [
        (os.system, script),
        (eval, write),
        (exec, write),
        (subprocess.call, ["touch", str(marker)]),
        (os.mkdir, str(marker)),
        (open, str(marker), "w"),
        (runpy.run_path, str(marker)),
        (pickle.loads, pickle.dumps(_Runs(os.mkdir, str(marker)))),
        (os.popen, script),
    ]
    for function, *arguments in calls:
        runs = _Runs(function, *arguments)
        for place in (runs, {"model_ema": runs}, {"model_ema": {"mask_token": runs}}, [runs]):
            for protocol in (2, 4):
                yield function.__name__, pickle.dumps(place, protocol=protocol)
    text = script.encode()
    for module in (b"os", b"posix", b"nt", b"torch.serialization.os", b"torch.os"):
        call = b"c" + module + b"\nsystem\nX" + struct.pack("<I", len(text)) + text + b"\x85R."
        yield f"{module.decode()}.system", b"\x80\x02" + call
    yield "INST", b"(S'" + text + b"'\nios\nsystem\n."
    yield "OBJ", b"(cos\nsystem\nS'" + text + b"'\no."
    yield "a name with a line's control characters", b"\x80\x02c\x1b[2J\nx\r\n."
    yield "a name of 100,000 letters", b"\x80\x02c" + b"x" * 100_000 + b"\ny\n."
    state = b"}X\x03\x00\x00\x00getcos\nsystem\ns"
    yield "an OrderedDict's method", b"\x80\x02ccollections\nOrderedDict\n)R" + state + b"b."


def _machines() -> Iterator[tuple[str, bytes]]:
    """Instructions without sense, or that take memory or time out of proportion."""
    start, ordered = b"\x80\x02", b"ccollections\nOrderedDict\n"
    bodies = {
        "nothing": b"",
        "only an end": b".",
        "no end": b"}",
        "a list": b"].",
        "a number": b"K\1.",
        "a set": b"\x8f.",
        "an unknown instruction": b"\xff.",
        "what is not in the memo": b"h\5.",
        "a far place in the memo": b"}r\xff\xff\xff\xff.",
        "a pair from nothing": b"\x86.",
        "a list's end without its start": b"]e.",
        "a key that is a list": b"}]K\1s.",
        "a key that is a number with a point": b"}G" + bytes(8) + b"K\1s.",
        "a key without value": b"}(K\1u.",
        "an item for a number": b"K\1K\2K\3s.",
        "an item appended to a dictionary": b"}K\1a.",
        "a text of 4 GiB": b"X\xff\xff\xff\xffabc.",
        "a long text": b"\x8d" + b"\xff" * 7 + b"\x7f.",
        "bytes of 4 GiB": b"B\xff\xff\xff\xffabc.",
        "a number of 2 GiB": b"\x8b\xff\xff\xff\x7f1.",
        "a frame": b"\x95" + b"\xff" * 8 + b".",
        "an extension": b"\x82\1.",
        "a persistent name": b"Px\n.",
        "a persistent number": b"K\1Q.",
        "a persistent text": b"X\1\0\0\0aQ.",
        "a name alone": b"ctorch\nFloatStorage\n.",
        "a call of a number": b"K\1)R.",
        "a call of a storage": b"ctorch\nFloatStorage\nK\1\x85R.",
        "an object of a tensor's class": b"ctorch._utils\n_rebuild_tensor_v2\n)\x81.",
        "an object with arguments": b"cargparse\nNamespace\nK\1\x85\x81.",
        "attributes of a number": b"K\1}b.",
        "a state that is not one": b"cargparse\nNamespace\n)\x81K\1b.",
        "an attribute that is not text": b"cargparse\nNamespace\n)\x81}K\1K\1sb.",
        "bytearray of 1 TiB": b"cbuiltins\nbytearray\n\x8a\6" + bytes(5) + b"\1\x85R.",
        "torch.FloatTensor of 1 TiB": b"ctorch\nFloatTensor\n\x8a\6" + bytes(5) + b"\1\x85R.",
        "a Counter": b"ccollections\nCounter\n)R.",
        "codecs": b"c_codecs\nencode\nX\1\0\0\0aX\6\0\0\0latin1\x86R.",
        # t = (t, t), 100 times over: what hashes, compares or prints it never ends
        "a doubling key": b"})" + b"q\0h\0\x86" * 100 + b"K\1s.",
        "a doubling persistent name": b")" + b"q\0h\0\x86" * 100 + b"Q.",
        "a doubling value": b"}X\1\0\0\0a)" + b"q\0h\0\x86" * 100 + b"s.",
        "a doubling argument": ordered + b")" + b"q\0h\0\x86" * 100 + b"R.",
        "a doubling function": b")" + b"q\0h\0\x86" * 100 + b")R.",
        "deep dictionaries": b"}X\1\0\0\0a" * 100_000 + b"}" + b"s" * 100_000 + b".",
        "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep tuples": b"K\1" + b"\x85" * 200_000 + b".",
        "deep marks": b"(" * 200_000 + b".",
        "a list in itself": b"]q\0h\0a.",
        "a dictionary in itself": b"}q\0X\1\0\0\0ah\0s.",
        # 100,000 copies of a dictionary of 100,000 items
        "many copies": (
            ordered
            + b"q\0("
            + b"".join(b"J" + struct.pack("<i", i) + b"K\1\x86" for i in range(100_000))
            + b"tq\1(h\0h\1R"
            + b"h\0h\1R" * 100_000
            + b"t."
        ),
    }
    for kind, body in bodies.items():
        yield kind, start + body


def _tensors() -> Iterator[tuple[str, bytes]]:
    """Storages and tensors that aren't what their file holds: storage "0" has 16 float32."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def storage(kind: bytes = b"Float", key: bytes = b"0", elements: int = 16) -> bytes:
        name = b"(X\7\0\0\0storagectorch\n" + kind + b"Storage\nX"
        place = struct.pack("<I", len(key)) + key + b"X\3\0\0\0cpu"
        return name + place + number(elements) + b"tQ"

    def tensor(
        held: bytes, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
    ) -> bytes:
        shape = number(offset) + numbers(size) + numbers(stride)
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + held + shape
        return call + b"\x89ccollections\nOrderedDict\n)RtR"

    def of(value: bytes) -> bytes:
        return b"\x80\x02}X\x0a\0\0\0mask_token" + value + b"s."

    for elements in (0, 15, 17, 1 << 20, 1 << 40, 1 << 62, 1 << 64, -1, -16):
        yield f"a storage of {elements}", of(tensor(storage(elements=elements), (16,), (1,)))
    for kind in (b"Double", b"Long", b"Half", b"Untyped", b"Typed", b"ComplexFloat", b"QInt8"):
        yield f"a storage of {kind.decode()}", of(tensor(storage(kind), (16,), (1,)))
    for key in (b"1", b"", b"../data.pkl", b"\0", b"0" * 1000):
        yield "a storage that is not there", of(tensor(storage(key=key), (16,), (1,)))
    for size, stride, offset in (
        ((17,), (1,), 0),
        ((16,), (1,), 1),
        ((16,), (1,), -1),
        ((-1,), (1,), 0),
        ((4, 4), (-4, 1), 0),
        ((1 << 40,), (0,), 0),
        ((1 << 20,), (1,), 0),
        ((1 << 62, 1 << 62), (0, 0), 0),
        ((1 << 64,), (1,), 0),
        ((0,), (1,), 1 << 40),
        ((4, 4), (4,), 0),
        ((1,) * 65, (1,) * 65, 0),
        ((2, 2), (1 << 62, 1 << 62), 0),
        ((1, 1, 48), (0, 0, 0), 0),
    ):
        held = f"{size[:3]} {stride[:3]} {offset}"
        yield f"a tensor of {held}", of(tensor(storage(), size, stride, offset))
    whole = tensor(storage(), (16,), (1,))
    yield "a tensor as a key", b"\x80\x02}" + whole + b"K\1s."
    yield "a tensor given attributes", of(whole + b"}X\1\0\0\0aK\1sb")
    yield (
        "a parameter of a number",
        of(b"ctorch._utils\n_rebuild_parameter\nK\1\x89ccollections\nOrderedDict\n)R\x87R"),
    )
    yield "a tensor with hooks", of(whole[: -len(b")RtR")] + b")RK\1K\1stR")


def _odd_objects() -> Iterator[Any]:
    """Things that torch.save writes and that aren't weights."""
    yield from (torch.zeros(32, device="meta"), torch.zeros(32).to_sparse(), nn.Linear(2, 2))
    yield torch.quantize_per_tensor(torch.zeros(32), 0.1, 0, torch.qint8)
    yield torch.quantize_per_channel(
        torch.zeros(2, 16), torch.ones(2), torch.zeros(2, dtype=torch.long), 0, torch.qint8
    )
    yield torch.zeros(4, 8).to_sparse_csr()
    yield torch.nested.nested_tensor([torch.zeros(3), torch.zeros(5)])
    with contextlib.suppress(RuntimeError, AttributeError, TypeError):
        jagged = [torch.zeros(3), torch.zeros(5)]
        yield torch.nested.nested_tensor(jagged, layout=torch.jagged)
    yield from (torch.zeros(32).untyped_storage(), torch.Size([1]), torch.float32, {1, 2}, 1j)
    yield from (argparse.Namespace(a=1), [torch.zeros(32)], None, "text", 1, b"bytes")
    yield {"bias": torch.zeros(32)}
    marked = torch.zeros(32)
    marked.extra = "an attribute"  # type: ignore[attr-defined]
    yield marked
    yield torch.view_as_complex(torch.zeros(32, 2)).conj()


# ---- weights that don't fit


def _weights() -> Iterator[Sample]:
    for key, tensor in WEIGHTS.items():
        poisoned = {}
        for value in ("nan", "inf", "-inf"):
            poisoned[value] = tensor.clone()
            poisoned[value].view(-1)[tensor.numel() // 2] = float(value)
        changes: dict[str, Callable[[dict[str, Tensor]], Any]] = {
            "missing": lambda w, key=key: w.pop(key),
            "renamed": lambda w, key=key: w.update({f"x.{key}": w.pop(key)}),
            "reshaped": lambda w, key=key: w.update({key: w[key].flatten()[:-1].clone()}),
            "one dimension more": lambda w, key=key: w.update({key: w[key][None].clone()}),
            "NaN": lambda w, key=key, p=poisoned: w.update({key: p["nan"]}),
            "infinite": lambda w, key=key, p=poisoned: w.update({key: p["inf"]}),
            "minus infinite": lambda w, key=key, p=poisoned: w.update({key: p["-inf"]}),
        }
        for kind, change in changes.items():
            weights = dict(WEIGHTS)
            change(weights)
            yield Sample(kind, "a.safetensors", {"a.safetensors": save(weights)})
    names = ["bool", "uint8", "int8", "int16", "int32", "int64", "complex64", "float8_e5m2"]
    for name in names:
        weights = WEIGHTS | {"z_proj.bias": torch.zeros(8).to(getattr(torch, name))}
        for file, data in (("a.pth", saved(weights)), ("a.safetensors", save(weights))):
            yield Sample(f"dtype {name}", file, {file: data})
    for key in ("mask_token", "diffloss.net.input_proj.bias"):
        for value in (float("nan"), float("inf")):
            weights = copy.deepcopy(WEIGHTS)
            weights[key].view(-1)[0] = value
            for contents in (weights, checkpoint(weights)):
                yield Sample("not finite", "a.pth", {"a.pth": saved(contents)})
    wide = {key: value.double() for key, value in WEIGHTS.items()}
    wide["mask_token"] = torch.full_like(wide["mask_token"], 1e300)
    yield Sample("too large", "a.pth", {"a.pth": saved(wide)})
    one = torch.zeros(max(value.numel() for value in WEIGHTS.values()))
    views = {key: one[: value.numel()].view(value.shape) for key, value in WEIGHTS.items()}
    yield Sample("one storage for all", "a.pth", {"a.pth": saved(views)})
    for key in ("a\nb", "\x1b[2J", "x" * 100_000, "\ud800"):
        with contextlib.suppress(UnicodeEncodeError):
            yield Sample("odd key", "a.pth", {"a.pth": saved(WEIGHTS | {key: torch.zeros(1)})})
    for contents in ({}, {"model": {}}, {"model_ema": []}, {"model": {1: 2}}, {3: torch.zeros(1)}):
        yield Sample("little", "a.pth", {"a.pth": saved(contents)})


# ---- safetensors' headers


def _headers() -> Iterator[Sample]:
    def tensor(dtype: str, shape: list[Any], offsets: list[Any]) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    one = tensor("F32", [1], [0, 4])
    headers: list[Any] = [
        {},
        [],
        None,
        1,
        "x",
        {"a": 1},
        {"a": {}},
        {"a": tensor("F32", [1], [4, 0])},
        {"a": tensor("F32", [1], [0, 8])},
        {"a": tensor("F32", [1], [-4, 0])},
        {"a": tensor("F32", [1], [0, 1 << 63])},
        {"a": tensor("F32", [1], [0, 1 << 64])},
        {"a": tensor("F32", [1 << 62, 4], [0, 4])},
        {"a": tensor("F32", [1 << 63, 1 << 63], [0, 4])},
        {"a": tensor("F32", [0, 1 << 62], [0, 0])},
        {"a": tensor("F32", [-1], [0, 4])},
        {"a": tensor("F32", [1.5], [0, 4])},
        {"a": tensor("F32", ["1"], [0, 4])},
        {"a": tensor("F99", [1], [0, 4])},
        {"a": tensor("", [1], [0, 4])},
        {"a": tensor("BOOL", [4], [0, 4])},
        {"a": tensor("F32", [1], [0])},
        {"a": tensor("F32", [1], [0, 4, 4])},
        {"a": tensor("F32", [1] * 10_000, [0, 4])},
        {"a": one, "b": one},
        {"a": one, "b": tensor("F32", [1], [2, 6])},
        {"a": tensor("F32", [1], [4, 8])},
        {"a\nb": one},
        {"\x1b[2J": one},
        {"x" * 100_000: one},
        {"a": one, "__metadata__": {"a": 1}},
        {"a": one, "__metadata__": []},
    ]
    texts = [json.dumps(header).encode() for header in headers]
    texts += [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"{} {}", b"nul\0"]
    texts += [b'{"a":%s,"a":%s}' % (json.dumps(one).encode(), json.dumps(one).encode())]
    for text in texts:
        data = safetensors(text, bytes(4))
        yield Sample("header", "a.safetensors", {"a.safetensors": data})
    for length in (0, 1, 1 << 20, 100_000_001, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1):
        data = safetensors(b"{}", bytes(4), length)
        yield Sample("header length", "a.safetensors", {"a.safetensors": data})
    for config in _bad_configs():
        data = save(WEIGHTS, {METADATA: config})
        yield Sample("config inside", "a.safetensors", {"a.safetensors": data}, says=True)


# ---- what files say about themselves


def _options() -> Iterator[Sample]:
    """Options of the original's training that contradict the preset, or make no model."""
    values = (0, -1, 1 << 20, 1 << 70, 1.5, float("nan"), "x", None, True, [], {}, (1, 2))
    for option in ("img_size", "vae_stride", "buffer_size", "diffloss_w", "num_sampling_steps"):
        for value in values:
            options = argparse.Namespace(**OPTIONS | {option: value})
            data = saved(checkpoint() | {"args": options})
            yield Sample(f"option {option}", "a.pth", {"a.pth": data}, says=True)
    for model in ("mar_base", "mar_huge", "vit", "", 3, None, [], ()):
        data = saved(checkpoint() | {"args": argparse.Namespace(model=model)})
        yield Sample("option model", "a.pth", {"a.pth": data}, says=True)
    data = saved(checkpoint() | {"args": argparse.Namespace(**OPTIONS)})
    yield Sample("contradiction", "a.pth", {"a.pth": data})


def _bad_configs() -> Iterator[str]:
    yield from ("", "{", "null", "[1]", "1", "x", "\0", "[" * 100_000, '{"a":' * 500, '{"a":1}')
    data = PRESET.to_dict()
    for name in data["architecture"]:
        for value in (0, -1, 1 << 40, "x", None, True, [], float("nan")):
            yield json.dumps(data | {"architecture": data["architecture"] | {name: value}})
    large = {"diffloss_d": 1024} | dict.fromkeys(("img_size", "buffer_size", "diffloss_w"), 65536)
    for name, value in large.items():
        yield json.dumps(data | {"architecture": data["architecture"] | {name: value}})


def _configs() -> Iterator[Sample]:
    weights = save(WEIGHTS)

    def folder(kind: str, config: bytes) -> Sample:
        files = {"model/config.json": config, "model/model.safetensors": weights}
        return Sample(kind, "model", files, says=True)

    for config in _bad_configs():
        yield folder("config", config.encode())
    for end in range(0, len(CONFIG), 20):
        yield folder("config cut", CONFIG[:end].encode())
    yield folder("config in another encoding", CONFIG.encode("utf-16"))
    yield folder("config in no encoding", b'{"\xff": 1}')
    yield Sample("no config", "model", {"model/model.safetensors": weights}, says=True)
    yield Sample("no weights", "model", {"model/config.json": CONFIG.encode()}, says=True)
    yield Sample("other weights", "model", {"model/mar-base.safetensors": weights}, says=True)
    yield Sample("an empty folder's name", "model", {"model/x": b""}, says=True)


def _misnamed() -> Iterator[Sample]:
    good = saved(checkpoint())
    yield Sample("a .pth", "a.safetensors", {"a.safetensors": good})
    yield Sample("a .safetensors", "a.pth", {"a.pth": save(WEIGHTS)})
    yield Sample("a folder", "a.pth", {"a.pth/x": b""})
    yield Sample("a folder", "a.safetensors", {"a.safetensors/x": b""})
    yield Sample("unknown suffix", "a.h5", {"a.h5": good})
    yield Sample("no suffix", "a", {"a": good})
    yield Sample("not there", "b.pth", {})
    yield Sample("text", "a.pth", {"a.pth": b"<!DOCTYPE html>"})
    yield Sample("something before", "a.pth", {"a.pth": bytes(100) + good}, harmless=True)
    yield Sample("something after", "a.pth", {"a.pth": good + bytes(100)}, harmless=True)
    yield Sample("something after", "a.safetensors", {"a.safetensors": save(WEIGHTS) + bytes(100)})
