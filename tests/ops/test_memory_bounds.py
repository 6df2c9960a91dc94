"""No kernel reads or writes past a buffer: each buffer ends where an unmapped page begins."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, itertools, mmap
import torch
from marfast.ops import native

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

C = native.extension()
dtypes = (torch.float32, torch.bfloat16, torch.float16)
for isa, dtype, width, at_start in itertools.product(C.isas(), dtypes, WIDTHS, (False, True)):
    C.set_isa(isa)
    code, guided = native.DTYPE_CODES[dtype], width % 2
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
    if PAST_THE_END:
        C.layer_norm_modulate(
            out, x, x, x, 0, 0, 3, width + 1, width + 1, width + 1, width + 1, 0, 1e-6
        )
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
