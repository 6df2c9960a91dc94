"""No kernel reads or writes past a buffer: each buffer ends where an unmapped page begins."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, itertools, math, mmap
import torch
from marfast import ops
from marfast.ops.head import HeadShape
from marfast.ops.runtime import cpu
from marfast.reference import HeadSpec
from marfast.reference.diffusion import HeadOptions

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
fences = []

def fenced(tensor, at_start=False):
    # A copy up against a page that can be neither read nor written.
    size = tensor.numel() * tensor.element_size()
    pages = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + PAGE)
    start = PAGE if at_start else pages - size
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
    copy = copy.view(tensor.shape).copy_(tensor)
    fence = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + (0 if at_start else pages)
    if libc.mprotect(fence, PAGE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    fences.append(fence)
    return copy

def nan(*sizes, at_start):
    return fenced(torch.full(sizes, torch.nan), at_start)

C = cpu.extension()
torch.set_num_threads(1)
dtypes = (torch.float32, torch.bfloat16, torch.float16)
for isa, dtype, width, at_start in itertools.product(C.isas(), dtypes, WIDTHS, (False, True)):
    C.set_isa(isa)
    rows = torch.ones(3, width, dtype=dtype)
    names = ("out", "x", "shift", "scale")
    given = {name: fenced(rows, at_start) for name in names}
    affine = {name: fenced(rows[0], at_start) for name in ("weight", "bias")}
    C.layer_norm_modulate(**given, **affine, eps=1e-6)

    options = HeadOptions(1 + width % 2, clip_denoised=True)
    given = {name: fenced(torch.ones(3, width), at_start) for name in ("out", "x", "noise")}
    outputs = torch.ones(6 if options.guided else 3, 2 * width, dtype=dtype)
    C.ddpm_step(
        **given,
        model_output=fenced(outputs, at_start),
        coefficients=fenced(torch.ones(8), at_start),
        guidance=fenced(torch.ones(1), at_start),
        x0=None if options.guided else fenced(torch.ones(3, width), at_start),
        options=options,
    )

MAR = HeadSpec()
OTHER = HeadSpec(
    norm="rms", norm_after=True, activation="swiglu", bias=False, share=2, variance=False,
    times=2, time_norm="std", condition="mlp", order="gate scale shift",
)
HEADS = (  # tokens, its sizes, steps, guided, steps at once, threads
    (1, HeadShape(1, 1, 1, 0, 2, 1), 2, False, 2, 1),
    (3, HeadShape(1, 1, 1, 1, 1, 1), 3, True, 1, 2),
    (2, HeadShape(3, 5, 33, 2, 7, 33), 3, True, 3, 4),
    (15, HeadShape(16, 7, 31, 1, 4, 31), 2, True, 1, 3),
    (4, HeadShape(40, 300, 65, 1, 8, 65), 2, False, 2, 4),
    (1, HeadShape(17, 2, 257, 1, 3, 257), 2, True, 2, 4),
    (3, HeadShape(5, 20, 33, 3, 6, 19), 3, True, 2, 2),
)
WEIGHTS = (torch.float32, torch.bfloat16)
for isa, dtype, head, at_start in itertools.product(C.isas(), WEIGHTS, HEADS, (False, True)):
    C.set_isa(isa)
    tokens, shape, steps, guided, chunk, threads = head
    group = min(tokens, 4)  # of 15 tokens four groups, of fewer one
    spec = MAR if shape.hidden == shape.width else OTHER
    outputs = 2 * shape.channels if spec.variance else shape.channels
    channels, rows = shape.channels, 2 * tokens if guided else tokens
    drawn = [torch.randn(*sizes) * sizes[-1] ** -0.5 for sizes in shape.expected(spec)]
    weights = [fenced(weight.to(dtype), at_start) for weight in drawn]
    packed = nan(C.packed_head_size(shape=shape, spec=spec, dtype=dtype), at_start=at_start)
    C.pack_head(shape=shape, spec=spec, dtype=dtype, weights=weights, packed=packed)
    common = {"packed": packed, "shape": shape, "spec": spec}
    common |= {"weight_dtype": dtype, "threads": threads}

    out, options = nan(tokens, channels, at_start=at_start), HeadOptions(
        1 + guided, 1.0, True, spec.variance
    )
    inputs = {
        "noise": torch.randn(tokens, channels),
        "step_noise": torch.randn(steps, tokens, channels),
        "condition": torch.randn(rows, shape.condition),
        "schedule": torch.rand(steps, 8),
        "time_embedding": torch.rand(spec.times, steps, shape.frequencies),
        "guidance": torch.ones(steps, 1),
    }
    inputs = {name: fenced(tensor, at_start) for name, tensor in inputs.items()}
    inputs["x0"] = fenced(torch.randn(tokens, channels), at_start) if steps == 2 else None
    size = C.ddpm_sample_workspace(
        shape=shape, spec=spec, options=options, tokens=tokens, group=group, steps=steps,
        chunk=chunk,
    )
    workspace = nan(size, at_start=at_start)
    for step in range(0, steps, chunk):
        C.ddpm_sample(
            out=out, **inputs, **common, workspace=workspace, options=options,
            group=group, step_begin=step, step_end=min(steps, step + chunk), chunk=chunk,
        )
    assert out.isfinite().all()

    inputs = {
        "x": torch.randn(tokens, channels),
        "condition": torch.randn(tokens, shape.condition),
        "time_embedding": torch.rand(spec.times, tokens, shape.frequencies),
    }
    inputs = {name: fenced(tensor, at_start) for name, tensor in inputs.items()}
    out = nan(tokens, outputs, at_start=at_start)
    size = C.denoise_workspace(shape=shape, spec=spec, rows=tokens)
    workspace = nan(size, at_start=at_start)
    C.denoise(out=out, **inputs, **common, workspace=workspace)
    assert out.isfinite().all()

BLOCKS = ((1, 1, 1), (3, 33, 2), (7, 257, 4), (40, 31, 3))  # rows, width, threads
for isa, dtype, block, at_start in itertools.product(C.isas(), WEIGHTS, BLOCKS, (False, True)):
    C.set_isa(isa)
    rows, width, threads = block
    group = min(rows, 16)
    out = nan(rows, width, at_start=at_start)
    mlp = [torch.randn(*sizes).to(dtype) for sizes in ((width, width), (width,)) * 2]
    inputs = {
        **{name: torch.randn(rows, width) for name in ("x", "shift", "scale", "gate")},
        **{name: torch.ones(width) for name in ("norm_weight", "norm_bias")},
        "packed": ops.pack_adaln_mlp(*mlp),
    }
    C.adaln_mlp(
        out=out,
        **{name: fenced(tensor, at_start) for name, tensor in inputs.items()},
        workspace=nan(2, group, cpu.row_stride(width), at_start=at_start),
        group=group,
        weight_dtype=dtype,
        threads=threads,
        eps=1e-6,
    )
    assert out.isfinite().all()

LINEARS = (  # rows, K, J, with a residual, normed, threads
    (1, 1, 1, True, True, 1),
    (17, 33, 65, True, True, 2),
    (120, 15, 31, False, True, 4),
    (5, 100, 40, True, False, 3),
)
for isa, dtype, linear, at_start in itertools.product(C.isas(), WEIGHTS, LINEARS, (False, True)):
    C.set_isa(isa)
    rows, K, J, with_residual, normed, threads = linear
    group, stride = 14, cpu.row_stride(K)
    out = nan(rows, J, at_start=at_start)
    weight, bias = (fenced(torch.randn(*sizes).to(dtype), at_start) for sizes in ((J, K), (J,)))
    size = C.packed_linear_size(inputs=K, outputs=J, dtype=dtype)
    packed = nan(size, at_start=at_start)
    C.pack_linear(weight=weight, bias=bias, dtype=dtype, packed=packed)
    C.fused_linear(
        out=out,
        x=fenced(torch.randn(rows, K), at_start),
        packed=packed,
        norm_weight=fenced(torch.ones(K), at_start) if normed else None,
        norm_bias=fenced(torch.ones(K), at_start) if normed else None,
        residual=fenced(torch.ones(rows, J), at_start) if with_residual else None,
        workspace=nan(threads, group, stride, at_start=at_start),
        group=group,
        scratch_stride=stride,
        weight_dtype=dtype,
        threads=threads,
        gelu=True,
        eps=1e-6,
    )
    assert out.isfinite().all()

NORMS = ((1, 1, 1, 1, 1), (2, 65, 17, 1, 1), (1, 63, 33, 3, 2), (3, 130, 96, 32, 3))
for isa, dtype, norm, at_start in itertools.product(C.isas(), dtypes, NORMS, (False, True)):
    C.set_isa(isa)
    images, positions, channels, groups, threads = norm
    values = torch.randn(images, positions, channels).to(dtype)
    out = fenced(values * torch.nan, at_start)
    C.group_norm_silu(
        out=out,
        x=fenced(values, at_start),
        weight=fenced(values[0, 0], at_start),
        bias=fenced(values[0, 0], at_start),
        moments=nan(3, images, groups, -(-positions // 64), at_start=at_start),
        group_moments=nan(2, images, channels, at_start=at_start),
        scratch=nan(threads, 2, channels, at_start=at_start),
        groups=groups,
        threads=threads,
        silu=True,
        eps=1e-6,
    )
    assert out.isfinite().all()

if PAST_THE_END:
    ctypes.string_at(fences[-1], 1)
print("within bounds")
"""


def run(widths: tuple[int, ...], past_the_end: bool) -> subprocess.CompletedProcess[str]:
    code = f"WIDTHS, PAST_THE_END = {widths}, {past_the_end}\n{CODE}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="fences need mmap and mprotect")
@pytest.mark.usefixtures("needs_native")
def test_kernels_stay_inside_their_buffers():
    result = run((1, 3, 15, 16, 17, 31, 33, 64, 65, 100), past_the_end=False)
    assert result.stdout == "within bounds\n", result.stderr
    # The fence works: who reads behind it is killed.
    assert run((16,), past_the_end=True).returncode < 0
