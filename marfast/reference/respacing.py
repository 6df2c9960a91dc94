"""Which of a process's timesteps a sampler visits, and in how many steps each iteration samples."""

import re
from collections.abc import Iterable

NUM_TRAIN_TIMESTEPS = 1000

LAST_TIMESTEP = 980
"""Where samplers other than DDPM begin: past it there is almost no signal (`LEAST_SIGNAL`)."""

_RANGE = re.compile("([0-9]{1,9})-([0-9]{1,9})")


def space_timesteps(num_timesteps: int, respacing: str | Iterable[int]) -> set[int]:
    """Which of `num_timesteps` timesteps a respaced process keeps.

    `respacing` is a count per equal section of the process ("100", "10,15,20" or a list of ints),
    or "ddimN": N steps at the constant stride of DDIM. Raises ValueError when that can't be done.
    """
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        wanted = int(respacing.removeprefix("ddim"))
        for stride in range(1, num_timesteps):
            steps = range(0, num_timesteps, stride)
            if len(steps) == wanted:
                return set(steps)
        raise ValueError(
            f"respacing: {respacing!r}, but no constant stride gives {wanted} "
            f"of {num_timesteps} timesteps"
        )
    counts = [int(c) for c in respacing.split(",")] if isinstance(respacing, str) else [*respacing]
    size, extra = divmod(num_timesteps, len(counts))
    kept: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (section < extra)
        if count > length:
            raise ValueError(
                f"respacing: {respacing!r} asks for {count} of a section of {length} timesteps"
            )
        stride_ = 1.0 if count <= 1 else (length - 1) / (count - 1)
        position = 0.0  # accumulated, not multiplied: rounding decides which timesteps are kept
        for _ in range(count):
            kept.append(start + round(position))
            position += stride_
        start += length
    return set(kept)


def sampling_timesteps(steps: int | str, sampler: str) -> set[int]:
    """The timesteps of MAR's process that a sampler visits: DDPM those of the respacing `steps`;
    another sampler as many, evenly up to `LAST_TIMESTEP` and without 0, which its last step goes to
    anyway, or what a respacing keeps of them.

    Raises ValueError for steps that the sampler can't take.
    """
    least = 2 if sampler == "ddpm" else 1
    if sampler == "ddpm" or not str(steps).isdecimal():
        kept = space_timesteps(NUM_TRAIN_TIMESTEPS, str(steps))
        if sampler != "ddpm":
            kept = {t for t in kept if t <= LAST_TIMESTEP}
    else:
        count = int(steps)
        if count > LAST_TIMESTEP:
            raise ValueError(f"steps: {count} of {LAST_TIMESTEP} timesteps")
        kept = {round(LAST_TIMESTEP * i / count) for i in range(1, count + 1)}
    if len(kept) < least:
        raise ValueError(f"steps: {steps!r} keeps {len(kept)} timesteps; {sampler} needs {least}")
    return kept


def ends_of(steps: int | str) -> tuple[int | str, int | str]:
    """The steps of the first and of the last iteration: "50-5" has 50 and 5, others the same."""
    found = _RANGE.fullmatch(steps) if isinstance(steps, str) else None
    return (int(found[1]), int(found[2])) if found else (steps, steps)


def steps_of_iterations(steps: int | str, num_iter: int) -> list[int | str]:
    """The steps of each of the K iterations: "50-5" falls from 50 to 5, linearly (DiSA, arXiv
    2505.20297: the more tokens are known, the less there is left to denoise)."""
    first, last = ends_of(steps)
    if first == last:
        return [first] * num_iter
    span, most = int(first) - int(last), max(1, num_iter - 1)
    return [int(last) + int((num_iter - 1 - k) / most * span) for k in range(num_iter)]
