"""No kernel reads or writes past a buffer: each buffer ends where an unmapped page begins."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, itertools, mmap
import torch
from marfast import ops
from marfast.ops.runtime import cpu
from marfast.ops.head import HeadShape

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
kept = []

def fenced(tensor, at_start=False):
    # The tensor's bytes, up against a page that can be neither read nor written.
    size = tensor.numel() * tensor.element_size()
    pages = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + PAGE)
    kept.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fence = address if at_start else address + pages
    start = address + PAGE if at_start else fence - size
    ctypes.memmove(start, tensor.data_ptr(), size)
    if libc.mprotect(fence, PAGE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return start

def nan(*sizes, at_start):
    return fenced(torch.full(sizes, torch.nan), at_start)

def assert_written(address, count):
    floats = (ctypes.c_float * count).from_address(address)
    assert torch.frombuffer(floats, dtype=torch.float32).isfinite().all()

C = cpu.extension()
torch.set_num_threads(1)
dtypes = (torch.float32, torch.bfloat16, torch.float16)
for isa, dtype, width, at_start in itertools.product(C.isas(), dtypes, WIDTHS, (False, True)):
    C.set_isa(isa)
    code, guided = cpu.DTYPE_CODES[dtype], width % 2
    rows = torch.ones(3, width, dtype=dtype)
    x, shift, scale, out = (fenced(rows, at_start) for _ in range(4))
    weight, bias = (fenced(rows[0], at_start) for _ in range(2))
    C.layer_norm_modulate(
        out, x, shift, scale, weight, bias, 3, width, width, width, width, code, 1e-6
    )
    tokens = torch.ones(3, width)
    out, x, noise = (fenced(tokens, at_start) for _ in range(3))
    model_output = fenced(torch.ones(6 if guided else 3, 2 * width, dtype=dtype), at_start)
    coefficients, guidance = (fenced(torch.ones(n), at_start) for n in (7, 1))
    C.ddpm_step(
        out, x, model_output, noise, coefficients, guidance,
        3, width, width, 2 * width, width, code, guided, 1.0, True,
    )

HEADS = (  # tokens, its sizes, steps, guided, steps at once, threads
    (1, HeadShape(1, 1, 1, 0, 2), 2, False, 2, 1),
    (3, HeadShape(1, 1, 1, 1, 1), 3, True, 1, 2),
    (2, HeadShape(3, 5, 33, 2, 7), 3, True, 3, 4),
    (15, HeadShape(16, 7, 31, 1, 4), 2, True, 1, 3),
    (4, HeadShape(40, 300, 65, 1, 8), 2, False, 2, 4),
    (1, HeadShape(17, 2, 257, 1, 3), 2, True, 2, 4),
)
WEIGHTS = (torch.float32, torch.bfloat16)
for isa, dtype, head, at_start in itertools.product(C.isas(), WEIGHTS, HEADS, (False, True)):
    C.set_isa(isa)
    code = cpu.packed_code(dtype)
    tokens, shape, steps, guided, chunk, threads = head
    channels, rows = shape.channels, 2 * tokens if guided else tokens
    drawn = [torch.randn(*sizes) * sizes[-1] ** -0.5 for sizes in shape.expected()]
    weights = [fenced(weight.to(dtype), at_start) for weight in drawn]
    size = C.packed_head_size(shape, code)
    packed = nan(size, at_start=at_start)
    C.pack_head(shape, code, cpu.DTYPE_CODES[dtype], weights, packed)
    out = nan(tokens, channels, at_start=at_start)
    inputs = (
        torch.randn(tokens, channels), torch.randn(steps, tokens, channels),
        torch.randn(rows, shape.condition),
    )
    x, noise, cond = (fenced(tensor, at_start) for tensor in inputs)
    tables = (torch.rand(steps, 7), torch.rand(steps, shape.frequencies), torch.ones(1))
    schedule, embedding, guidance = (fenced(tensor, at_start) for tensor in tables)
    size = C.ddpm_sample_workspace(shape, tokens, steps, chunk, guided)
    workspace = nan(size, at_start=at_start)
    for step in range(0, steps, chunk):
        C.ddpm_sample(
            out, x, noise, cond, packed, schedule, embedding, guidance, workspace, shape,
            tokens, steps, step, min(steps, step + chunk), chunk, tokens * channels, code, threads,
            guided, 1.0, True,
        )
    assert_written(out, tokens * channels)

    inputs = (
        torch.randn(tokens, channels), torch.randn(tokens, shape.condition),
        torch.rand(tokens, shape.frequencies),
    )
    x, cond, embedding = (fenced(tensor, at_start) for tensor in inputs)
    out = nan(tokens, 2 * channels, at_start=at_start)
    workspace = nan(C.denoise_workspace(shape, tokens), at_start=at_start)
    C.denoise(out, x, cond, embedding, packed, workspace, shape, tokens, code, threads)
    assert_written(out, tokens * 2 * channels)

BLOCKS = ((1, 1, 1), (3, 33, 2), (7, 257, 4), (40, 31, 3))  # rows, width, threads
for isa, dtype, block, at_start in itertools.product(C.isas(), WEIGHTS, BLOCKS, (False, True)):
    C.set_isa(isa)
    code = cpu.packed_code(dtype)
    rows, width, threads = block
    group, stride = min(rows, 16), -(-width // 32) * 32 + 32
    out = nan(rows, width, at_start=at_start)
    inputs = [torch.randn(rows, width) for _ in range(4)] + [torch.ones(width) for _ in range(2)]
    mlp = [torch.randn(*sizes).to(dtype) for sizes in ((width, width), (width,)) * 2]
    inputs = [fenced(tensor, at_start) for tensor in (*inputs, ops.pack_adaln_mlp(*mlp))]
    workspace = nan(2, group, stride, at_start=at_start)
    C.adaln_mlp(
        out, *inputs, workspace, rows, width, group, width, width, width, width, code, threads,
        1e-6,
    )
    assert_written(out, rows * width)

LINEARS = (  # rows, K, J, with a residual, normed, threads
    (1, 1, 1, True, True, 1),
    (17, 33, 65, True, True, 2),
    (120, 15, 31, False, True, 4),
    (5, 100, 40, True, False, 3),
)
for isa, dtype, linear, at_start in itertools.product(C.isas(), WEIGHTS, LINEARS, (False, True)):
    C.set_isa(isa)
    code = cpu.packed_code(dtype)
    rows, K, J, with_residual, normed, threads = linear
    group, stride = 14, -(-K // 32) * 32 + 32
    out = nan(rows, J, at_start=at_start)
    layer = [fenced(torch.randn(*sizes).to(dtype), at_start) for sizes in ((J, K), (J,))]
    packed = nan(C.packed_linear_size(K, J, code), at_start=at_start)
    C.pack_linear(K, J, code, cpu.DTYPE_CODES[dtype], *layer, packed)
    x = fenced(torch.randn(rows, K), at_start)
    weight, bias = (fenced(torch.ones(K), at_start) if normed else 0 for _ in range(2))
    residual = fenced(torch.ones(rows, J), at_start) if with_residual else 0
    workspace = nan(threads * group * stride, at_start=at_start)
    C.fused_linear(
        out, x, packed, weight, bias, residual, workspace,
        rows, K, J, group, K, J, stride, code, threads, True, 1e-6,
    )
    assert_written(out, rows * J)

NORMS = ((1, 1, 1, 1, 1), (2, 65, 17, 1, 1), (1, 63, 33, 3, 2), (3, 130, 96, 32, 3))
for isa, dtype, norm, at_start in itertools.product(C.isas(), dtypes, NORMS, (False, True)):
    C.set_isa(isa)
    images, positions, channels, groups, threads = norm
    chunks = -(-positions // 64)
    values = torch.randn(images, positions, channels).to(dtype)
    out, x = (fenced(tensor, at_start) for tensor in (values * torch.nan, values))
    weight, bias = (fenced(values[0, 0], at_start) for _ in range(2))
    sizes = ((3, images, groups, chunks), (2, images, channels), (threads, 2, channels))
    work = (nan(*size, at_start=at_start) for size in sizes)
    C.group_norm_silu(
        out, x, weight, bias, *work,
        images, positions, channels, groups, chunks, threads,
        cpu.DTYPE_CODES[dtype], True, 1e-6,
    )
    if dtype == torch.float32:
        assert_written(out, values.numel())

if PAST_THE_END:
    C.set_isa(C.isas()[0])
    x, out = (fenced(torch.ones(3, 16), False) for _ in range(2))
    C.layer_norm_modulate(out, x, x, x, 0, 0, 3, 17, 17, 17, 17, 0, 1e-6)
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
    # The fence works: one element more per row, and the process is killed.
    assert run((16,), past_the_end=True).returncode < 0
