"""`ddpm_sample` by csrc/cpu/ddpm_sample.h: tokens in groups, and steps in chunks whose modulation
is one tall product."""

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops.ddpm_sample import options as options_of
from marfast.ops.ddpm_sample import scales_of
from marfast.ops.ddpm_step import result_for, rows_of
from marfast.ops.head import HeadShape, takes_mars
from marfast.ops.head.cpu import packed_head, time_embedding
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, takes

PAIRS = 224
"""(step, row) pairs whose modulation is computed at once: rows enough for a tall product."""


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"noise": a.noise})
    if ok:
        ok, reason = takes({"weights": a.weights[0]}, DTYPES)
    return takes_mars(a, options_of(a).branches) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    shape, options, extension = HeadShape.of(a.weights), options_of(a), cpu.extension()
    check_memory(noise=a.noise, step_noise=a.step_noise, cond=a.cond)
    check_memory(schedule=a.schedule, timesteps=a.timesteps, guidance=a.guidance)
    packed = packed_head(a.weights, shape, a.packed)
    step_noise = a.step_noise if a.step_noise[0].is_contiguous() else a.step_noise.contiguous()
    (noise, _), schedule = rows_of(a.noise.contiguous()), a.schedule.contiguous()
    guidance = scales_of(a).flatten()
    embedding = time_embedding(tuple(a.timesteps.tolist()), shape.frequencies)
    tokens, steps = len(noise), len(schedule)
    rows = options.branches  # of a token
    group = min(max(1, tokens), PAIRS // rows)
    chunks = -(-steps // (PAIRS // (group * rows)))
    chunk = -(-steps // chunks)
    sizes = {"tokens": group, "steps": steps, "chunk": chunk}
    workspace = cpu.empty(extension.ddpm_sample_workspace(shape=shape, options=options, **sizes))
    result = result_for(a.noise)
    out, x0 = rows_of(result)
    for first in range(0, tokens, group):
        members = slice(first, min(tokens, first + group))
        condition = torch.cat([part[members] for part in a.cond.split(tokens)])
        for i in range(chunks):  # Ctrl-C is heard between them
            begin, end = steps * i // chunks, steps * (i + 1) // chunks
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
                    shape=shape,
                    options=options,
                    step_begin=begin,
                    step_end=end,
                    chunk=chunk,
                    weight_dtype=cpu.packed_dtype(a.weights[0].dtype),
                    threads=cpu.threads(),
                )
    return result
