"""The NVTX ranges of the CUDA launches, as a tool sees them: those of the GPU's own bindings, in
those of marfast/ops/head/gpu.py."""

from pathlib import Path

import pytest

from tests import nvtx

from . import build

PROGRAM = """
import importlib.util
spec = importlib.util.spec_from_file_location("marfast_emulation", {file!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

import torch
from marfast import ops
from marfast.ops import choice
from marfast.ops.head import HeadShape
from marfast.ops.runtime import cuda
cuda._load = lambda: (module, "")
cuda.reaches = lambda name, device: (True, "")
with choice.backend("cuda"):
    weights = [torch.ones(sizes) for sizes in HeadShape(3, 5, 16, 2, 8, 16).expected()]
    ops.denoise(torch.ones(3, 3), torch.ones(3), torch.ones(3, 5), weights)
    x, noise, output = torch.ones(4, 3), torch.ones(4, 3), torch.ones(8, 6)
    ops.ddpm_step(x, output, noise, torch.ones(8), torch.ones(1))
    ops.layer_norm_modulate(*torch.ones(3, 5, 16))
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
@pytest.mark.skipif(bool(nvtx.missing()), reason=nvtx.missing())
def test_each_launch_lies_in_the_range_of_its_op() -> None:
    seen = nvtx.record(PROGRAM.format(file=build.module().__file__))
    rows, block = 3, "marfast:denoise/adaln_mlp"
    products = [(f"{block}/{name}", rows) for name in ("layer_norm_modulate", "linear", "linear")]
    linear = ("marfast:denoise/linear", rows)
    assert seen == [
        ("marfast:denoise", rows),
        *[linear] * 3,  # of time and condition
        ("marfast:denoise/silu_sum", rows),
        *[linear] * 4,  # modulation of two blocks and of the end, input
        *[(block, rows), *products] * 2,
        ("marfast:denoise/layer_norm_modulate", rows),
        linear,
        ("marfast:ddpm_step", 4),  # tokens
        ("marfast:layer_norm_modulate", 5),
    ]


@pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
@pytest.mark.parametrize("headers", [False, True])
def test_without_nvtx_headers_there_are_no_ranges(headers: bool, tmp_path: Path) -> None:
    if headers and nvtx.missing():
        pytest.skip(nvtx.missing())
    flags = ("-isystem", str(nvtx.include())) if headers else ()
    source, to = tmp_path / "range.cpp", tmp_path / "range.o"
    source.write_text('#include "marfast/range.h"\nvoid f() { marfast::Range range("f", 1); }\n')
    build.compile_object(source, to, *flags)
    assert (b"nvtxDomain" in to.read_bytes()) == headers
