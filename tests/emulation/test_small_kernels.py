"""The device kernels of ddpm_step, layer_norm_modulate, adaln_mlp and denoise, run by the emulator.

float32 equals the portable CPU kernels to the bit; bfloat16 and float16 products are as near to
float64 as docs/numerics.md asks, beside PyTorch's own.
"""

import importlib.util
import sysconfig
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast.ops import cuda, native
from marfast.ops.registry import OPS
from tests.emulation import build
from tests.ops.heads import denoise_inputs

pytestmark = [
    pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build()),
    pytest.mark.usefixtures("needs_native"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HALVES = DTYPES[1:]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pybind11 = pytest.importorskip("pybind11")
    folder = tmp_path_factory.mktemp("kernels")
    python = (pybind11.get_include(), sysconfig.get_paths()["include"])
    includes = tuple(f"-I{path}" for path in python)
    name = "-DMARFAST_CUDA_MODULE=marfast_emulation"
    objects = [build.emulator()]
    for source, flags in (
        (build.HERE / "launchers.cpp", (*build.INSTRUMENTED, "-Wno-unknown-pragmas")),
        (build.CSRC / "cuda" / "head.cpp", ("-O1",)),
        (build.CSRC / "cuda" / "bindings.cpp", ("-O1", name)),
    ):
        objects.append(folder / f"{source.stem}.o")
        build.compile_object(source, objects[-1], *flags, includes=includes)
    library = folder / "marfast_emulation.so"
    done = build.run("c++", "-shared", *objects, "-ldl", "-o", library)
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("marfast_emulation", library)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(autouse=True)
def emulated(module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cuda, "_load", lambda: (module, ""))
    monkeypatch.setattr(cuda, "device_verdict", lambda *_: (True, ""))
    yield


def run(name: str, backend: str, *args: Any) -> Tensor:
    op = OPS[name]
    args = op.fill(args)
    assert op.backends[backend].can_run(*args) == (True, "")
    with native.cpu_isa("portable"):
        return op.backends[backend].run(*args)


def assert_equal(name: str, *args: Any) -> None:
    got, expected = run(name, "cuda", *args), run(name, "cpu", *args)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def assert_as_near_as_pytorch(name: str, *args: Any) -> None:
    """Twice PyTorch's own RMS error against float64, four times its largest (rule 4)."""
    op = OPS[name]
    args = op.fill(args)
    exact = op.reference(*to_float64(args))
    own = (op.reference(*args).double() - exact).abs()
    ours = (run(name, "cuda", *args).double() - exact).abs()
    assert ours.square().mean().sqrt() <= 2 * own.square().mean().sqrt()
    assert ours.max() <= 4 * own.max()


def to_float64(args: tuple[Any, ...]) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(each) for each in value]
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if floats else value

    return [one(value) for value in args]


def draw(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("tokens", "channels"), [(0, 3), (1, 1), (33, 7), (20, 16)])
def test_ddpm_step(dtype: torch.dtype, guided: bool, tokens: int, channels: int) -> None:
    x, _, noise, coefficients, guidance, _, clip = OPS["ddpm_step"].example(
        torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    x, noise = draw(tokens, channels), draw(tokens, channels, seed=1)
    output = draw((1 + guided) * tokens, 2 * channels + 3, dtype=dtype, seed=2)[:, : 2 * channels]
    assert_equal("ddpm_step", x, output, noise, coefficients, guidance, 0.9, clip)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (5, 31), (3, 33), (2, 64), (9, 97), (4, 1280)]
)
def test_layer_norm_modulate(dtype: torch.dtype, affine: bool, rows: int, width: int) -> None:
    x, shift, scale = (draw(rows, width, dtype=dtype, seed=seed) for seed in range(3))
    weight, bias = (draw(width, dtype=dtype, seed=seed) if affine else None for seed in (3, 4))
    assert_equal("layer_norm_modulate", x, shift[:1].expand_as(x), scale, weight, bias, 1e-6)


def block(rows: int, width: int, dtype: torch.dtype) -> tuple[Any, ...]:
    mlp = [draw(*sizes, dtype=dtype, seed=9) for sizes in ((width, width), (width,)) * 2]
    mlp = [tensor * width**-0.5 for tensor in mlp]
    inputs = [draw(rows, width, seed=seed) for seed in range(4)]
    return (*inputs, draw(width, seed=5), draw(width, seed=6), *mlp, 1e-6)


# 4 rows and fewer, then more: both tiles; 300: two blocks of k; odd widths: no 16 bytes a copy.
BLOCKS = [(1, 1), (3, 40), (4, 33), (5, 257), (9, 300), (70, 136)]


@pytest.mark.parametrize(("rows", "width"), BLOCKS)
def test_adaln_mlp_in_float32_is_the_cpus(rows: int, width: int) -> None:
    assert_equal("adaln_mlp", *block(rows, width, torch.float32))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "width"), BLOCKS[1:])
def test_adaln_mlp_in_halves(dtype: torch.dtype, rows: int, width: int) -> None:
    assert_as_near_as_pytorch("adaln_mlp", *block(rows, width, dtype))


SIZES = [{}, {"channels": 5, "condition": 7, "width": 33, "depth": 1, "frequencies": 31}]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rows", [1, 9])
def test_denoise_in_float32_is_the_cpus(sizes: dict[str, int], rows: int) -> None:
    assert_equal("denoise", *denoise_inputs(rows, **sizes), None)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", HALVES)
def test_denoise_in_halves(sizes: dict[str, int], dtype: torch.dtype) -> None:
    assert_as_near_as_pytorch("denoise", *denoise_inputs(9, dtype=dtype, **sizes), None)
