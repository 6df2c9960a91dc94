"""`ddpm_sample` by csrc/cpu/ddpm_sample.h: tokens in groups, and steps in chunks whose modulation
is one tall product."""

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
"""(step, row) pairs whose modulation is computed at once: rows enough for a tall product."""


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
    tokens, steps = len(noise), len(schedule)
    rows = options.branches  # of a token
    group = min(max(1, tokens), PAIRS // rows)
    chunks = -(-steps // (PAIRS // (group * rows)))
    chunk = -(-steps // chunks)
    sizes = {"tokens": group, "steps": steps, "chunk": chunk}
    common = {"shape": shape, "spec": spec, "options": options}
    workspace = cpu.empty(extension.ddpm_sample_workspace(**common, **sizes))
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
                    **common,
                    step_begin=begin,
                    step_end=end,
                    chunk=chunk,
                    weight_dtype=cpu.packed_dtype(a.weights[0].dtype),
                    threads=cpu.threads(),
                )
    return result
