"""The folder for the Hugging Face package `kernels`: loaded offline, without marfast beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hub.layout import BACKENDS, ROOT, lay_out
from marfast.reference import SimpleMLPAdaLN
from marfast.reference.denoise import denoise
from marfast.reference.head import FinalLayer, ResBlock
from marfast.reference.transformer import Block
from tests.helpers import assert_as_accurate

WIDTH = 96
EXTENSIONS = [*(ROOT / "marfast").glob("_cpu*.so")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("hub") / "marfast"
    lay_out(target, EXTENSIONS)
    return target


def metadata(folder: Path, backend: str) -> dict[str, Any]:
    found = (folder / "build" / f"torch-{backend}" / "metadata.json").read_text()
    read: dict[str, Any] = json.loads(found)
    return read


ALONE = """
import importlib.util, sys
name, file = sys.argv[1:]
sys.modules["marfast"] = sys.modules["hub"] = None
spec = importlib.util.spec_from_file_location(name, file)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import torch
x = torch.ones(2, 3)
getattr(torch.ops, name).layer_norm_modulate(x, x, x)
print(module.which("layer_norm_modulate", x, x, x))
print(hasattr(torch.ops.marfast, "denoise"))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_build_needs_nothing_beside_it(backend: str, folder: Path, needs_native: None) -> None:
    file = folder / "build" / f"torch-{backend}" / "__init__.py"
    name = metadata(folder, backend)["id"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, name, file], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu", "False"]


def test_a_build_is_named_after_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    extension = tmp_path / "_cpu.so"
    extension.write_bytes(b"another")
    lay_out(tmp_path / "marfast", [extension])
    names = [metadata(place, b)["id"] for place in (folder, tmp_path / "marfast") for b in BACKENDS]
    assert len(set(names)) == 4
    assert all(name.isidentifier() for name in names)
    with pytest.raises(FileExistsError):
        lay_out(folder, [])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")  # read when it is imported
    found: ModuleType = pytest.importorskip(
        "kernels", reason="the package `kernels` is missing: pip install -e '.[hub]'"
    )
    return found


def test_it_is_loaded_from_its_folder(
    folder: Path, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = kernels.get_local_kernel(folder, backend="cpu")
    assert loaded.__name__ == metadata(folder, "cpu")["id"]
    monkeypatch.setitem(os.environ, "LOCAL_KERNELS", f"someone/marfast={folder}")
    assert kernels.get_kernel("someone/marfast", version=1, backend="cpu") is loaded


def filled(module: nn.Module) -> nn.Module:
    """With random parameters, of which none hides another."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        scale = parameter.shape[-1] ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return module.eval()


def head() -> nn.Module:
    return SimpleMLPAdaLN(8, WIDTH, 16, 24, 2)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], str]] = {
    "SimpleMLPAdaLN": (
        head,
        lambda: (torch.randn(6, 8), torch.randint(1000, (6,)), torch.randn(6, 24)),
        "denoise",
    ),
    "ResBlock": (lambda: ResBlock(WIDTH), lambda: (*torch.randn(2, 6, WIDTH),), "adaln_mlp"),
    "FinalLayer": (
        lambda: FinalLayer(WIDTH, 16),
        lambda: (*torch.randn(2, 6, WIDTH),),
        "layer_norm_modulate",
    ),
    "Block": (lambda: Block(WIDTH, 3), lambda: (torch.randn(2, 7, WIDTH),), "fused_linear"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_kernelize_gives_modules_its_layers(
    name: str, folder: Path, kernels: ModuleType, needs_native: None
) -> None:
    make, draw, op = LAYERS[name]
    own, given = filled(make()), filled(make())

    class Adopting(type(own)):  # type: ignore[misc]
        """So that the reference's class stays as it is."""

    given.__class__ = Adopting
    kernels.replace_kernel_forward_from_hub(Adopting, name)
    layer = kernels.LocalLayerRepository(folder, layer_name=name)
    with kernels.use_kernel_mapping({name: {"cpu": layer}}, inherit_mapping=False):
        kernels.kernelize(given, mode=kernels.Mode.INFERENCE, device="cpu")
    loaded = kernels.get_local_kernel(folder)

    def by_kernel(*inputs: Tensor) -> Tensor:
        with loaded.ops.choice.used() as used:
            result: Tensor = given(*inputs)
        assert used[op] == {"cpu"}
        return result

    def by_itself(*inputs: Tensor) -> Tensor:
        module = own.to(inputs[0].dtype)
        if isinstance(module, SimpleMLPAdaLN):  # whose timesteps are embedded in float32
            return denoise(*inputs, [*module.parameters()])
        result: Tensor = module(*inputs)
        return result

    torch.manual_seed(0)
    with torch.no_grad():
        assert_as_accurate(by_kernel, by_itself, [draw() for _ in range(8)])


def test_weights_that_change_are_packed_anew(folder: Path, kernels: ModuleType) -> None:
    loaded = kernels.get_local_kernel(folder)
    module, (x, t, c) = filled(head()), LAYERS["SimpleMLPAdaLN"][1]()
    forward = loaded.layers.SimpleMLPAdaLN.forward
    with torch.no_grad():
        before = forward(module, x, t, c)
        module.get_parameter("final_layer.linear.bias").add_(1)
        torch.testing.assert_close(forward(module, x, t, c), before + 1)
