"""What was measured is kept in a file for the next process, whatever happens to the file."""

import errno
import json
from collections.abc import Callable
from typing import Any

import pytest

from marfast import files
from marfast.ops import tuning
from marfast.ops.op import OPS, Op
from marfast.ops.trials import read
from tests.ops.simulated import CPU, MACHINE, Device, chosen


def test_the_next_process_measures_nothing(device: Device, op: Op) -> None:
    device.plant(op, cuda=2e-3, triton=1e-3, torch=3e-3)
    assert chosen(op) == "triton"
    device.start()
    planted = device.plant(op, cuda=1e-3, triton=5e-3, torch=1e-3)  # were it to look
    assert chosen(op) == "triton"
    assert device.clock.timed == 0
    assert [len(made.runs) for made in planted.values()] == [0, 1, 0], "the known answer alone"


def test_what_dead_processes_left_beside_the_trials_goes(device: Device, op: Op) -> None:
    left = device.file.parent / ".marfast-0123.part"
    (left / "new").mkdir(parents=True)
    device.plant(op, cuda=1e-3, torch=2e-3)
    assert chosen(op) == "cuda"
    assert [*device.file.parent.iterdir()] == [device.file]


@pytest.mark.parametrize("changed", MACHINE)
def test_trials_of_another_machine_or_version_are_ignored(
    device: Device, op: Op, changed: str
) -> None:
    device.plant(op, cuda=2e-3, torch=1e-3)
    assert chosen(op) == "torch"
    device.start({**MACHINE, changed: "another"})
    device.plant(op, cuda=1e-3, torch=2e-3)
    assert chosen(op) == "cuda"


def _changed(change: Callable[[Any], Any]) -> Callable[[str], str]:
    return lambda text: json.dumps(change(json.loads(text)))


def _trials(change: dict[str, Any]) -> Callable[[str], str]:
    def changed(found: Any) -> Any:
        for tried in found["trials"].values():
            for trial in tried.values():
                trial.update(change)
        return found

    return _changed(changed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[:-9],
        lambda text: "[" * 100_000,
        lambda text: "\udcff",
        _changed(lambda found: {**found, "format": 0}),
        _changed(lambda found: {**found, "trials": 3}),
        _changed(lambda found: [found]),
        _trials({"seconds": "fast"}),
        _trials({"seconds": -1.0}),
        _trials({"seconds": None}),
        _trials({"wrong": 1}),
        _trials({"other": 1}),
    ],
)
def test_a_file_that_is_no_such_file_is_ignored(
    device: Device, op: Op, spoil: Callable[[str], str]
) -> None:
    device.plant(op, cuda=2e-3, torch=1e-3)
    assert chosen(op) == "torch"
    text = spoil(device.file.read_text())
    device.file.write_bytes(text.encode("utf-8", "surrogateescape"))
    device.start()
    device.plant(op, cuda=1e-3, torch=2e-3)
    assert chosen(op) == "cuda"
    assert read(device.file, MACHINE), "and written anew"


def test_a_cache_that_can_not_be_written_is_done_without(device: Device, op: Op) -> None:
    device.file.parent.joinpath("file").touch()
    device.file = device.file.parent / "file" / "trials.json"
    device.start()
    device.plant(op, cuda=1e-3, torch=2e-3)
    assert chosen(op) == "cuda"


def test_a_cache_that_nobody_may_write_is_done_without(device: Device, op: Op) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    device.monkeypatch.setattr(files.os, "open", refused)
    device.plant(op, cuda=1e-3, torch=2e-3)
    assert chosen(op) == "cuda"
    assert not device.file.exists()


def test_processes_that_measure_at_once_keep_what_each_found(device: Device, op: Op) -> None:
    other = OPS["attention"]
    tuners = []
    for one in (op, other):
        device.start()  # with the file as it was before the first one wrote
        tuners.append((one, device.plant(one, cuda=1e-3, torch=2e-3), device.tuner))
    for one, _, tuner in tuners:
        device.monkeypatch.setattr(tuning, "_tuners", {CPU: tuner})
        assert chosen(one) == "cuda"
    device.start()
    for one in (op, other):
        planted = device.plant(one, cuda=2e-3, torch=1e-3)
        assert (chosen(one), planted["torch"].runs) == ("cuda", [])


def test_while_another_process_writes_nothing_is_kept(device: Device, op: Op) -> None:
    device.plant(op, cuda=1e-3, torch=2e-3)
    with files.claimed(device.file):
        assert chosen(op) == "cuda"
    assert not device.file.exists()
    device.start()
    device.plant(op, cuda=2e-3, torch=1e-3)
    assert chosen(op) == "torch", "measured anew"
    assert device.file.exists()
