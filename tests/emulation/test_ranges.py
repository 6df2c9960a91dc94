"""The NVTX ranges of the CUDA launchers, as a tool sees them: those of the GPU's own bindings."""

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
from marfast.ops.runtime import cuda
from marfast.ops.head import HeadShape, example_weights
cuda._load = lambda: (module, "")
cuda.device_verdict = lambda name, tensor: (True, "")
with choice.backend("cuda"):
    weights = example_weights(HeadShape(3, 5, 16, 2, 8), torch.float32, "cpu", torch.Generator())
    ops.denoise(torch.ones(3, 3), torch.ones(3), torch.ones(3, 5), weights)
    x, noise, output = torch.ones(4, 3), torch.ones(4, 3), torch.ones(8, 6)
    ops.ddpm_step(x, output, noise, torch.ones(7), torch.ones(1))
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
    build.compile_object(build.CSRC / "cuda" / "head.cpp", tmp_path / "head.o", *flags)
    assert (b"nvtxDomain" in (tmp_path / "head.o").read_bytes()) == headers
