"""What a backend gives a device to do: operations, copies from or to the host, waits. No GPU.

    python -m benchmarks.studies.device_work    # rewrites benchmarks/results/device-work.json

The meta device stands in for a GPU: each of torch's operators on its tensors is seen before it is
dispatched, and our kernels where they are launched. Of MAR-B, one image under guidance: a sampling
step (what a third one adds to two), and the second of 64 iterations of the loop, with 100 steps.
Each backend is forced; transformer blocks run by the ops, but for `reference` by their own code.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.studies import RESULTS
from marfast.bench import heads
from marfast.bench.results import commit, write_rows
from marfast.checkpoints import get_preset
from marfast.generation import randomness
from marfast.generation.loop import Loop
from marfast.model import FastMAR, block, head, packing
from marfast.ops import choice
from marfast.ops.ddpm_sample import cuda as sample_by_cuda
from marfast.ops.ddpm_sample import plan
from marfast.ops.op import OPS, Op
from marfast.ops.runtime import cuda
from marfast.reference import DiffLoss

FILE = RESULTS / "device-work.json"
DEVICE = torch.device("meta")
ITERATIONS, STEPS = 64, 100
KINDS = ("operations", "copies", "waits")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
NOT_WORK = ("empty", "new_empty", "_unsafe_view", "lift_fresh", "detach")
WHO = ("original", "reference", "torch", "triton", "cuda, tall", "cuda, persistent")


class OnDevice(torch.Generator):
    """A generator of DEVICE, which has none: no number is drawn there."""

    device = DEVICE  # type: ignore[assignment]


class Recorder(TorchDispatchMode):
    """Counts what is given to the device inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.found = dict.fromkeys(KINDS, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in WAITS:
            self.found["waits"] += 1
            raise RuntimeError(f"{name} waits for the device")
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        # a number of the host is an argument of a launch
        devices = {x.device.type for x in tensors if x.device.type == "meta" or x.dim()}
        if "meta" in devices and not func.is_view and name not in NOT_WORK:
            self.found["operations"] += 1
            self.found["copies"] += len(devices) > 1
        return result

    def launch(self, *_: Any, **__: Any) -> None:
        """Stands where a kernel of ours is launched."""
        self.found["operations"] += 1


@contextlib.contextmanager
def launches(recorder: Recorder, who: str) -> Iterator[None]:
    """Our kernels are counted in place of run."""
    name, _, regime = who.partition(", ")
    patches: list[Any] = []
    if name == "cuda":
        gpu = plan.gpu_profiles()["H100 SXM"]
        resident = SimpleNamespace(resident_blocks=lambda **_: gpu.sms)
        patches += [
            mock.patch.object(cuda, "call", recorder.launch),
            mock.patch.object(cuda, "module", return_value=resident),
            mock.patch.object(plan, "profile_of", return_value=gpu),
        ]
        if regime == "tall":
            patches.append(mock.patch.object(sample_by_cuda, "regime", return_value=(None, regime)))
    if name == "triton":
        from triton.runtime import JITFunction

        patches.append(mock.patch.object(JITFunction, "run", recorder.launch))
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def backend_of(op: Op[Any], who: str) -> Callable[[Any], Tensor]:
    return op.backends.get(who.partition(", ")[0], op.backends["torch"]).run


def of_a_sample(who: str, dtype: torch.dtype, steps: int) -> dict[str, int]:
    with DEVICE:
        net = heads.make_head("mar_base", "meta")
    work = heads.head_workload(net, 2, steps).in_dtype(dtype)
    op, recorder = OPS["ddpm_sample"], Recorder()
    run = backend_of(op, who)

    def sample() -> None:
        if who == "original":
            its_own(net, steps).sample(work.cond, 1.0, 2.9)
        else:
            run(op.bind(*work.arguments))

    with launches(recorder, who):
        sample()
        recorder.found.update(dict.fromkeys(KINDS, 0))
        with recorder:
            sample()
    return recorder.found


def its_own(net: Any, steps: int) -> DiffLoss:
    diffloss = DiffLoss(16, 768, 6, 1024, str(steps))
    diffloss.net = net
    return diffloss


@torch.no_grad()
def of_a_step(who: str, dtype: torch.dtype) -> dict[str, int]:
    two, three = (of_a_sample(who, dtype, steps) for steps in (2, 3))
    return {kind: three[kind] - two[kind] for kind in KINDS}


@torch.no_grad()
def of_an_iteration(who: str, steps: int = STEPS) -> dict[str, int]:
    """The second of 64."""
    known = get_preset("mar_base")
    with DEVICE:
        module = known.architecture.build(steps=str(steps)).eval().requires_grad_(False)
    recorder = Recorder()

    def call(op: Op[Any], *args: Any, **kwargs: Any) -> Tensor:
        return backend_of(op, who)(op.bind(*args, **kwargs))

    numbers = randomness.Generators(np.random.RandomState(0), torch.Generator(), OnDevice())
    settings = known.settings.replace(256, num_iter=ITERATIONS, steps=steps, cfg=2.9)
    with (
        choice.backend(who.partition(", ")[0]),
        launches(recorder, who),
        mock.patch.object(Op, "__call__", call),
        mock.patch.object(packing, "compute_dtype", lambda weight: weight.dtype),
        mock.patch.object(block, "_known_answer", return_value=""),
        mock.patch.object(head, "_known_answer", return_value=""),
    ):
        model = FastMAR(module).renewed()
        labels = torch.zeros(1, dtype=torch.int64)
        stream = randomness.BatchRandomness(numbers, 1, range(1))
        schedules = [model.schedule()] * settings.num_iter
        loop = Loop(model, labels, stream, settings, schedules)
        loop.iteration(0)
        recorder.found.update(dict.fromkeys(KINDS, 0))
        with recorder:
            loop.iteration(1)
    return recorder.found


def rows() -> list[dict[str, Any]]:
    """A row for each of WHO."""
    table = []
    for who in WHO:
        steps = {str(d)[6:]: of_a_step(who, d) for d in (torch.float32, torch.bfloat16)}
        if who == "original":  # its weights are one dtype with its rows
            del steps["bfloat16"]
        iteration = None if who == "original" else of_an_iteration(who)
        table.append({"who": who, "step": steps, "iteration": iteration})
    return table


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_rows(FILE, rows(), force=True, commit=commit())


if __name__ == "__main__":
    main()
