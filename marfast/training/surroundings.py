"""What a session shares with others: the folder, the process group, signals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from marfast.errors import ArgumentError
from marfast.evaluation.work import Place
from marfast.files import claimed


@contextmanager
def claimed_folder(folder: Path, name: str) -> Iterator[None]:
    """Nobody else trains into the folder; ArgumentError, naming `out`, if somebody does."""
    try:
        with claimed(folder / name):
            yield
    except BlockingIOError:
        raise ArgumentError("out", f"another process is training into {folder}") from None


@contextmanager
def process_group(place: Place, device: torch.device) -> Iterator[None]:
    """Of several processes, as torchrun has told them to meet; the caller's, if there is one."""
    if place.ranks == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=place.rank, world_size=place.ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put on a list; a second one of a kind does what it always does."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
