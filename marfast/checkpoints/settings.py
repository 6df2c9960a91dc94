"""How a model samples by default, and what it can sample with."""

import dataclasses
import re
import reprlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from marfast.errors import ArgumentError
from marfast.reference.respacing import (
    LAST_TIMESTEP,
    NUM_TRAIN_TIMESTEPS,
    ends_of,
    sampling_timesteps,
)
from marfast.reference.samplers import SAMPLERS
from marfast.validation import number, one_of, validated, whole

_RESPACING = re.compile("(ddim|( *0*[1-9][0-9]* *,)*) *0*[1-9][0-9]* *")


def _allowed_steps(sampler: str = "ddpm") -> str:
    least, most = (2, NUM_TRAIN_TIMESTEPS) if sampler == "ddpm" else (1, LAST_TIMESTEP)
    return (
        f'allowed are {least} to {most}, or a respacing such as "ddim50" or "10,15,20", or '
        '"50-5" from the first to the last iteration'
    )


def _steps(given: Any) -> int | str:
    """Whatever the sampler."""
    if isinstance(given, str) or (type(given) is int and abs(given) < 10**9):
        steps: int | str = given
        return steps
    raise ValueError(_allowed_steps())


def _interval(given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    share = number(0, 1)
    try:
        low, high = map(share, given)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if low > high:
        raise ValueError("allowed are two numbers from 0 to 1, the smaller one first")
    return low, high


Scale = Annotated[float, number(0, 1e4)]
Flag = Annotated[bool, one_of(False, True)]


@dataclass(frozen=True)
class Settings:
    """How to sample: autoregressive iterations, sampling steps (a count, a respacing as
    `reference.space_timesteps` takes it, or "50-5" from the first to the last iteration, which is
    an approximation), guidance scale and schedule, temperature, x_0 clipped, the sampler, DDIM's η,
    and the interval of t / 1000 outside of which steps have no guidance."""

    num_iter: Annotated[int, whole(1)] = 64
    steps: Annotated[int | str, _steps] = 100
    cfg: Scale = 1.0
    cfg_schedule: Annotated[Literal["linear", "constant"], one_of("linear", "constant")] = "linear"
    temperature: Scale = 1.0
    clip_denoised: Flag = False
    sampler: Annotated[str, one_of(*SAMPLERS)] = "ddpm"
    eta: Annotated[float, number(0, 1)] = 0.0
    guidance_interval: Annotated[tuple[float, float] | None, _interval] = None

    def replace(self, seq_len: int, **changes: Any) -> "Settings":
        """A copy with the changes that are not None, for a model of `seq_len` tokens; another
        sampler has its own η. An interval of (0, 1) is none.

        Raises ArgumentError, naming the setting, for anything that can't be sampled with.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if given.get("sampler", self.sampler) != self.sampler:
            given.setdefault("eta", 0.0)  # the other sampler's
        new: Settings = validated(Settings, dataclasses.asdict(self) | given)
        new.check(seq_len)
        return new

    def check(self, seq_len: int, prefix: str = "") -> None:
        """Raise ArgumentError for settings that don't fit together, or a model of `seq_len` tokens;
        `prefix` goes before a setting's name."""
        if self.num_iter > seq_len:
            allowed = f"allowed are 1 to {seq_len}, this model's tokens"
            raise ArgumentError(f"{prefix}num_iter", self.num_iter, allowed)
        self._check_steps(f"{prefix}steps")
        if self.eta and self.sampler != "ddim":
            allowed = f"allowed is 0 where the sampler is {self.sampler!r}: DDIM alone has an η"
            raise ArgumentError(f"{prefix}eta", self.eta, allowed)

    def _check_steps(self, name: str) -> None:
        allowed = _allowed_steps(self.sampler)
        for steps in ends_of(self.steps):
            if not _RESPACING.fullmatch(str(steps)):
                raise ArgumentError(name, reprlib.repr(self.steps), allowed)
            try:
                sampling_timesteps(steps, self.sampler)
            except ValueError as error:
                given = reprlib.repr(self.steps)
                raise ArgumentError(name, given, f"{allowed} ({error})") from None
