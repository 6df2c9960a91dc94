"""`group_norm_silu` by csrc/cpu/group_norm_silu.h."""

from torch import Tensor

from marfast.ops.group_norm_silu import is_channels_last
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, rows_adjacent, takes

CHUNK = 64  # positions whose moments are taken together


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x}, DTYPES)
    if ok and not is_channels_last(a.x):
        return False, "x is not channels_last in memory"
    return ok, reason


def run(a: Args) -> Tensor:
    check_memory(x=a.x)
    images, channels, height, width = a.x.shape
    positions, threads = height * width, cpu.threads()
    out: Tensor = a.x.new_empty((images, height, width, channels))
    cpu.extension().group_norm_silu(
        out=out.view(images, positions, channels),
        x=a.x.permute(0, 2, 3, 1).view(images, positions, channels),
        weight=rows_adjacent(a.weight),
        bias=rows_adjacent(a.bias),
        moments=cpu.empty(3, images, a.groups, -(-positions // CHUNK)),
        group_moments=cpu.empty(2, images, channels),
        scratch=cpu.empty(threads, 2, channels),
        groups=a.groups,
        threads=threads,
        silu=a.silu,
        eps=a.eps,
    )
    return out.permute(0, 3, 1, 2)
