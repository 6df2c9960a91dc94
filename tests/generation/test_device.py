"""What a CUDA device is asked, with a made-up driver in its place."""

from typing import Any

import pytest
import torch

from marfast.generation.device import Cuda

GPU = torch.device("cuda", 1)


class Stream:
    def __init__(self) -> None:
        self.awaited: list[Any] = []

    def wait_event(self, event: Any) -> None:
        self.awaited.append(event)


class Event:
    def record(self, stream: Stream) -> None:
        self.stream = stream


class Here:
    """As torch.cuda.device."""

    def __init__(self, device: torch.device) -> None:
        assert device == GPU

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    for name, value in {
        "device": Here,
        "Event": Event,
        "current_stream": lambda device: stream,
        "synchronize": lambda device: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device: (30, 100),
        "memory_snapshot": lambda: [
            {"segment_pool_id": (0, 0), "total_size": 1},
            {"segment_pool_id": (0, 7), "total_size": 20},
            {"segment_pool_id": (0, 7), "total_size": 300},
            {"total_size": 4000},
        ],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return stream


def test_memory_is_what_is_not_free_and_what_a_pool_has_taken(stream: Stream) -> None:
    device = Cuda(GPU)
    assert device.used() == 70
    assert device.held_by((0, 7)) == 320


def test_each_use_waits_for_the_one_before(stream: Stream) -> None:
    turns = Cuda(GPU).turns()
    for _ in range(3):
        with turns:
            pass
    first, second = stream.awaited
    assert first is not second
    assert first.stream is second.stream is stream
