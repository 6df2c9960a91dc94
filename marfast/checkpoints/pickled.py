"""What reading a .pth's pickle would do, followed without doing it.

torch.save writes dictionaries, numbers, strings and tensors with two dozen of pickle's
instructions. They are followed here on plain data: a name is compared with a list and never looked
up, nothing is called, a storage must be an entry of exactly its size, a tensor must lie within its
storage and have no more elements. One that passes costs memory and time in proportion to its size,
in `torch.load(weights_only=True)` as well, whose own list has more on it (bytearray of any length,
sparse and quantised tensors, …) and which a file could corrupt before 2.10 (CVE-2026-24747).
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

STORAGES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
"""Kinds of storage by name, with the bytes of an element."""

NAMES = {
    *STORAGES,
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
    "argparse Namespace",
}
"""Everything that a pickle may name."""


MOST_DIMENSIONS = 64  # torch's own limit
MOST_OPTIONS = 1000  # of an argparse.Namespace; the original has 67


class PickleError(ValueError):
    """A pickle that is damaged, or does what torch.save's don't."""


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass(frozen=True)
class _Storage:
    elements: int


class _Tensor:
    pass


class _Namespace:
    pass


def check_pickle(data: bytes, storages: Mapping[str, int]) -> None:
    """Raise PickleError unless `data` is what torch.save writes for plain data and dense tensors.

    storages: the size in bytes of every entry that holds a storage, by key.
    """
    machine = _Machine(storages)
    try:
        for instruction, argument, _ in pickletools.genops(data):
            action = _ACTIONS.get(instruction.name)
            if action is None:
                raise PickleError(f"its pickle has {instruction.name}, which is not read")
            action(machine, argument)
    except (IndexError, KeyError):
        raise PickleError("its pickle is damaged: it takes what it did not put") from None


class _Machine:
    """A pickle's stack, in which tensors, storages and objects are stand-ins."""

    def __init__(self, storages: Mapping[str, int]):
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def take_to_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def check_protocol(self, number: int) -> None:
        if number != 2:
            raise PickleError(f"its pickle has protocol {number}; torch.save writes 2")

    def name(self, name: str) -> None:
        if name not in NAMES:
            raise PickleError(f"holds {name.replace(' ', '.')}, which is not read")
        self.push(_Name(name))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.push(self.memo[index])

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("its pickle appends to what is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        keys, target = items[::2], self.stack[-1]
        if type(target) is not dict or len(items) % 2 or {type(k) for k in keys} - {str, int}:
            raise PickleError("its pickle sets what is not text or a number as a dictionary's key")
        target.update(zip(keys, items[1::2], strict=True))

    def storage(self, _: None) -> None:
        match self.stack.pop():
            case ("storage", _Name(kind), str(key), str(), int(elements)) if kind in STORAGES:
                if self.storages.get(key) != elements * STORAGES[kind]:
                    raise PickleError(
                        f"its pickle gives storage {key} {elements * STORAGES[kind]} bytes; "
                        f"its entry has {self.storages.get(key, 'none')}"
                    )
                self.push(_Storage(elements))
            case _:
                raise PickleError("its pickle refers to what is not a storage")

    def call(self, _: None) -> None:
        function, arguments = self.take(2)
        match function, arguments:
            case _Name("collections OrderedDict"), ():
                self.push({})
            case (
                _Name("torch._utils _rebuild_tensor_v2"),
                (_Storage(elements), offset, tuple(size), tuple(stride), bool(), hooks),
            ) if hooks == {}:
                _check_extent(elements, offset, size, stride)
                self.push(_Tensor())
            case _Name("torch._utils _rebuild_parameter"), (_Tensor(), bool(), hooks) if (
                hooks == {}
            ):
                self.push(_Tensor())
            case _:
                raise PickleError("its pickle makes a call that torch.save does not write")

    def new(self, _: None) -> None:
        match self.take(2):
            case [_Name("argparse Namespace"), ()]:
                self.push(_Namespace())
            case _:
                raise PickleError("its pickle makes an object other than argparse.Namespace")

    def build(self, _: None) -> None:
        state = self.stack.pop()
        match self.stack[-1], state:
            case _Namespace(), dict() if len(state) <= MOST_OPTIONS and all(
                type(key) is str for key in state
            ):
                pass
            case dict(), dict() if state.keys() == {"_metadata"}:  # of a module's state_dict
                pass
            case _:
                raise PickleError("its pickle gives an object attributes that torch.save does not")


def _check_extent(
    elements: int, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]
) -> None:
    if len(size) > MOST_DIMENSIONS:
        raise PickleError(f"its pickle has a tensor of {len(size)} dimensions")
    numbers = (offset, *size, *stride)
    natural = all(type(n) is int and n >= 0 for n in numbers)
    if not natural or len(size) != len(stride):
        raise PickleError("its pickle has a tensor whose shape is not one")
    span = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if offset + (span if 0 not in size else 0) > elements or math.prod(size) > elements:
        raise PickleError(f"its pickle has a tensor that is larger than its {elements} elements")


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(tuple(machine.take(count)))


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.check_protocol,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BINUNICODE": _Machine.push,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.take_to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.take_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.take_to_mark()),
    "GLOBAL": _Machine.name,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
}
"""What torch.save writes, and what each does to the stack."""
