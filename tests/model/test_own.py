"""Verdicts on modules' own code."""

import threading

from torch import nn

from marfast.model.own import Verdicts
from marfast.ops.runtime.capture import LOCK
from tests.limits import HANG


def test_a_verdict_and_a_capture_wait_for_each_other_in_one_order():
    """A capture asks for verdicts, and what finds one out may want to measure."""
    verdicts, module = Verdicts(), nn.Linear(1, 1)
    inside, over = threading.Event(), threading.Event()

    def find_out() -> str:
        inside.set()
        with LOCK:
            return "its own code"

    def capture() -> None:
        with LOCK:
            trial.start()
            inside.wait(0.2)
            verdicts.of(module, "eval", find_out)
        over.set()

    trial = threading.Thread(target=verdicts.of, args=(module, "eval", find_out), daemon=True)
    threading.Thread(target=capture, daemon=True).start()
    assert over.wait(HANG)
    trial.join(HANG)
    assert verdicts.known() == ["its own code"]
