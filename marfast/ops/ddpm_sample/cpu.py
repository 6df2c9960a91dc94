"""`ddpm_sample` by csrc/cpu/ddpm_sample.h: tokens in groups, and steps in chunks whose modulation
is one tall product."""

from typing import NamedTuple

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops.ddpm_sample import options as options_of
from marfast.ops.ddpm_sample import scales_of
from marfast.ops.ddpm_step import result_for, rows_of
from marfast.ops.head import HeadShape, spec_of
from marfast.ops.head.cpu import packed_head, time_embedding
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, takes

PAIRS = 224
"""(step, row) pairs whose modulation all threads compute at once: rows of a tall product."""

OWN_PAIRS = 112
"""Those of a thread that samples a group of tokens by itself: rows that stay in its caches."""

LEAST_OWN = 56
"""Rows from which on it does: it then reads all weights, and waits for nobody."""

MOST_MEMORY = 1 << 26
"""Floats of workspace that threads may take to sample by themselves."""


class Groups(NamedTuple):
    """How tokens and steps are divided."""

    tokens: int
    """Of a call of the kernel."""
    group: int
    """Of a group: all threads share a single one, or each has one of its own."""
    chunk: int
    """The most steps of a call."""

    @classmethod
    def of(cls, tokens: int, branches: int, steps: int, at_once: int = 1) -> "Groups":
        """In calls of `at_once` groups of one size."""
        pairs = PAIRS if at_once == 1 else OWN_PAIRS
        own = -(-max(1, tokens) // at_once)
        group = -(-own // -(-own // (pairs // branches)))
        calls = -(-steps // (pairs // (group * branches)))
        return cls(group * at_once, group, -(-steps // calls))


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"noise": a.noise})
    return takes({"weights": a.weights[0]}, DTYPES) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    spec, options, extension = spec_of(a), options_of(a), cpu.extension()
    shape = HeadShape.of(a.weights, spec)
    check_memory(noise=a.noise, step_noise=a.step_noise, cond=a.cond)
    check_memory(schedule=a.schedule, timesteps=a.timesteps, guidance=a.guidance)
    packed = packed_head(a, shape, spec)
    step_noise = a.step_noise if a.step_noise[0].is_contiguous() else a.step_noise.contiguous()
    (noise, _), schedule = rows_of(a.noise.contiguous()), a.schedule.contiguous()
    guidance = scales_of(a)
    embedding = time_embedding(a.timesteps, shape.frequencies, spec)
    tokens, steps, branches = len(noise), len(schedule), options.branches
    common = {"shape": shape, "spec": spec, "options": options}

    def floats(groups: Groups) -> int:
        size: int = extension.ddpm_sample_workspace(**common, **groups._asdict(), steps=steps)
        return size

    threads = cpu.threads()
    groups = Groups.of(tokens, branches, steps, threads)
    if groups.group * branches < LEAST_OWN or floats(groups) > MOST_MEMORY:
        groups = Groups.of(tokens, branches, steps)
    workspace = cpu.empty(floats(groups))
    result = result_for(a.noise)
    out, x0 = rows_of(result)
    parts = a.cond.split(tokens)
    for first in range(0, tokens, groups.tokens):
        last = min(tokens, first + groups.tokens)
        members = slice(first, last)
        condition = torch.cat(
            [
                part[at : min(last, at + groups.group)]
                for at in range(first, last, groups.group)
                for part in parts
            ]
        )
        for begin in range(0, steps, groups.chunk):  # Ctrl-C is heard between them
            end = min(steps, begin + groups.chunk)
            with profiling.range(f"steps {begin}-{end - 1}", len(condition)):
                extension.ddpm_sample(
                    out=out[members],
                    noise=noise[members],
                    step_noise=step_noise[:, members],
                    condition=condition,
                    packed=packed,
                    schedule=schedule,
                    time_embedding=embedding,
                    guidance=guidance,
                    x0=None if x0 is None else x0[members],
                    workspace=workspace,
                    **common,
                    group=groups.group,
                    step_begin=begin,
                    step_end=end,
                    chunk=groups.chunk,
                    weight_dtype=cpu.packed_dtype(a.weights[0].dtype),
                    threads=threads,
                )
    return result
