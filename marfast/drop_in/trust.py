"""Whether a module's own code computes what would run in its place: both are tried on a copy, at
the smallest size, from one state of the generators."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from marfast.generation.randomness import Generators
from marfast.model.trial import same, uncompiled
from marfast.ops.runtime.capture import LOCK

STEPS = 3
"""How many sampling steps are tried."""
SIDE, BUFFER = 3, 2
"""Of the image that is tried: rows and columns of tokens, and tokens of the buffer."""


def tried(*trials: Callable[[], str]) -> str:
    """What the first trial says that gets to its end."""
    for trial in trials:
        try:
            return trial()
        except Exception as error:
            message = (str(error).splitlines() or [""])[0]
            reason = f"it can't be tried: {type(error).__name__}: {message}"
    return reason


def differs(device: torch.device, theirs: Callable[[], Tensor], ours: Callable[[], Tensor]) -> str:
    """Why two computations are not the same: by their results or by the random numbers they draw;
    empty where they are."""
    results, states = [], []
    with _conditions(device) as generators:
        for run in (theirs, ours):
            generators.numpy.seed(0)
            generators.cpu.manual_seed(0)
            generators.device.manual_seed(0)
            results.append(run().float())
            states.append(generators.state())
    if not same(results[1], results[0]):
        return "it computes something else than MAR's"
    (numpy, *torches), (our_numpy, *our_torches) = states
    drawn = all(map(torch.equal, torches, our_torches)) and all(
        map(np.array_equal, numpy, our_numpy)
    )
    return "" if drawn else "it draws other random numbers than MAR's"


@contextmanager
def _conditions(device: torch.device) -> Iterator[Generators]:
    """Nobody's randomness moves, and nobody's settings count."""
    with LOCK:
        generators = Generators.global_ones(device)
        state, python = generators.state(), random.getstate()
        try:
            with (
                torch.no_grad(),
                torch.autocast(device.type, enabled=False),
                torch.device("cpu"),
                on_device(device),
                uncompiled(),
            ):
                yield generators
        finally:
            generators.set_state(state)
            random.setstate(python)


class _OnDevice(TorchFunctionMode):
    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.cuda:
            return args[0].to(self.device)
        args = tuple(map(self._here, args))
        kwargs = {name: self._here(value) for name, value in (kwargs or {}).items()}
        return function(*args, **kwargs)

    def _here(self, value: Any) -> Any:
        asked = isinstance(value, (str, torch.device)) and str(value).startswith("cuda")
        return self.device if asked else value


def on_device(device: torch.device) -> TorchFunctionMode:
    """On a machine without CUDA, code that asks for it gets this device."""
    return _OnDevice(device) if not torch.cuda.is_available() else TorchFunctionMode()


def shrink(trial: Any) -> None:
    """Make a trial's image as small as it can be."""
    side = min(SIDE, trial.seq_h, trial.seq_w)
    buffer, tokens = min(BUFFER, trial.buffer_size), side * side
    for name, positions in (
        ("encoder_pos_embed_learned", buffer + tokens),
        ("decoder_pos_embed_learned", buffer + tokens),
        ("diffusion_pos_embed_learned", tokens),
    ):
        embedding = getattr(trial, name)
        trial._parameters[name] = nn.Parameter(embedding[:, :positions], requires_grad=False)
    trial.seq_h = trial.seq_w = side
    trial.seq_len, trial.buffer_size = tokens, buffer


def shortened(process: Any) -> Any:
    """A copy of a diffusion process with a few of its steps: those with much noise, which count
    most, but for the first, whose coefficients are extreme."""
    steps = len(process.betas)
    if steps <= STEPS:
        return process
    part = slice(steps - 1 - STEPS, steps - 1)
    short = copy.copy(process)
    for name, value in vars(process).items():
        if isinstance(value, (list, tuple, np.ndarray, Tensor)) and len(value) == steps:
            short.__dict__[name] = value[part]
    short.num_timesteps = STEPS
    return short
