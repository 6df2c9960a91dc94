"""vLLM-Omni's plug-in, against a stand-in of its registry and of what pipelines use of it."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.checkpoints import Preset, Settings, convert
from marfast.errors import ArgumentError
from marfast.ops import choice
from tests.drop_in.heads.lookalikes.nextstep import OmniNextStep
from tests.drop_in.heads.lookalikes.parts import D, made
from tests.models import LATENT, tiny_autoencoder, tiny_weights

ROOT = Path(marfast.__file__).parents[1]
POST = "get_nextstep11_post_process_func"


class Registry:
    """As vllm_omni/diffusion/registry.py 0.30.0: built-in pipelines, which may be replaced."""

    def __init__(self) -> None:
        self.classes = {"NextStep11Pipeline": f"{OWN}:NextStep11Pipeline"}
        self.post = {"NextStep11Pipeline": POST}

    def register_diffusion_model(
        self,
        model_arch: str,
        module_name: str,
        class_name: str,
        pre_process_func_name: str | None = None,
        post_process_func_name: str | None = None,
    ) -> None:
        self.classes[model_arch] = f"{module_name}:{class_name}"
        if post_process_func_name is not None:
            self.post[model_arch] = post_process_func_name

    def made(self, arch: str, od_config: Any) -> tuple[nn.Module, Any]:
        """A pipeline, and its images' postprocessing."""
        module_name, name = self.classes[arch].split(":")
        module = importlib.import_module(module_name)
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(od_config.dtype)
        try:
            pipeline = getattr(module, name)(od_config=od_config)
        finally:
            torch.set_default_dtype(dtype)
        return pipeline, getattr(module, self.post[arch])(od_config)


OWN = "vllm_omni.diffusion.models.nextstep_1_1.pipeline_nextstep_1_1"


class OwnNextStep(nn.Module):
    """vLLM-Omni's NextStep11Pipeline, its language model left out."""

    def __init__(self, *, od_config: Any, prefix: str = "") -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.image_head = made(OmniNextStep)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    known = Registry()
    found: dict[str, dict[str, Any]] = {
        "vllm_omni.diffusion.registry": {
            "register_diffusion_model": known.register_diffusion_model
        },
        OWN: {"NextStep11Pipeline": OwnNextStep, POST: lambda od_config: "theirs"},
        "vllm_omni.diffusion.data": {"DiffusionOutput": SimpleNamespace},
        "vllm_omni.diffusion.distributed.utils": {
            "get_local_device": lambda: torch.device("cpu"),
        },
    }
    for name, attributes in found.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, ModuleType(path))
            if depth > 1:
                parent = sys.modules[".".join(parts[: depth - 1])]
                setattr(parent, parts[depth - 1], sys.modules[path])
        vars(sys.modules[name]).update(attributes)
    for name in ("nextstep", "mar"):
        monkeypatch.delitem(sys.modules, f"marfast.serving.vllm_omni.{name}", raising=False)
    entry_point().load()()
    yield known
    for name in ("nextstep", "mar"):
        sys.modules.pop(f"marfast.serving.vllm_omni.{name}", None)


def entry_point() -> importlib.metadata.EntryPoint:
    """As the package states it."""
    text = (ROOT / "pyproject.toml").read_text()
    group = "vllm_omni.general_plugins"
    stated = re.search(rf'^\[project.entry-points."{group}"\]\n(\w+) = "(.*)"$', text, re.MULTILINE)
    assert stated is not None
    return importlib.metadata.EntryPoint(stated[1], stated[2], group)


def test_the_entry_point_imports_neither_torch_nor_vllm() -> None:
    home = entry_point().module
    code = f"import sys, {home}; print({{'torch', 'vllm', 'vllm_omni'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def config(model: Path | str = "", dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    return SimpleNamespace(model=str(model), dtype=dtype, additional_config=more)


def test_nextstep_samples_by_the_op(registry: Registry) -> None:
    pipeline, post = registry.made("NextStep11Pipeline", config())
    assert isinstance(pipeline, OwnNextStep)
    assert post == "theirs"
    cond = torch.randn(6, D)

    def sampled(head: Any) -> Tensor:
        torch.manual_seed(0)
        tokens: Tensor = head.sample(
            c=cond,
            cfg=3.0,
            cfg_img=1.5,
            cfg_mult=3,
            timesteps_shift=1.5,
            num_sampling_steps=6,
            noise_repeat=1,
        )
        return tokens

    expected = sampled(made(OmniNextStep))
    with choice.used() as used:
        torch.testing.assert_close(sampled(pipeline.model.image_head), expected)
    assert "ddpm_sample" in used


def test_a_pipeline_without_a_head_that_is_known_runs_as_it_is(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "OmniNextStep", lambda: nn.Linear(2, 2))
    with pytest.warns(RuntimeWarning, match="vLLM-Omni's own code runs"):
        registry.made("NextStep11Pipeline", config())


def request(prompt: Any, dummy: bool = False, **asked: Any) -> Any:
    """A DiffusionRequestBatch of one request."""
    usual = {"seed": None, "num_outputs_per_prompt": 1, "num_inference_steps": None}
    usual |= {"guidance_scale": None, "guidance_scale_provided": False, "extra_args": {}}
    params = SimpleNamespace(**(usual | asked))
    return SimpleNamespace(prompts=[prompt], sampling_params=params, is_dummy_run=lambda: dummy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mar_makes_what_marfast_makes(dtype: torch.dtype, registry: Registry) -> None:
    pipeline, post = registry.made("MARPipeline", config("fashion-mnist", dtype))
    half = None if dtype == torch.float32 else dtype
    expected = marfast.load("fashion-mnist", dtype=half).generate(
        ["sneaker"] * 2, seed=3, num_iter=2, steps=4, cfg=2.5
    )
    asked = {"seed": 3, "num_outputs_per_prompt": 2, "num_inference_steps": 4}
    asked |= {"guidance_scale": 2.5, "guidance_scale_provided": True}
    for prompt in ("sneaker", {"prompt": " 7 "}):
        output = pipeline(request(prompt, **asked, extra_args={"num_iter": 2})).output
        assert type(output) is Tensor
        assert torch.equal(output, expected)
    assert [picture.size for picture in post(output)] == [(28, 28)] * 2
    assert pipeline.load_weights(iter(())) is None
    assert dict(pipeline.named_parameters())


def test_mars_prompts(registry: Registry) -> None:
    pipeline, _ = registry.made("MARPipeline", config("fashion-mnist"))
    warmed = pipeline(request("dummy run", dummy=True, num_inference_steps=1)).output
    assert warmed.shape == (1, 1, 28, 28)
    few = {"seed": 0, "num_inference_steps": 2, "extra_args": {"num_iter": 1}}
    expected = marfast.load("fashion-mnist").generate([None], seed=0, num_iter=1, steps=2)
    assert torch.equal(pipeline(request("none", **few)).output, expected)
    with pytest.raises(ArgumentError, match="a dog"):
        pipeline(request("a dog", **few))


def test_latents_need_a_tokenizer(registry: Registry, tmp_path: Path) -> None:
    torch.save({"model_ema": tiny_weights(LATENT)}, tmp_path / "latents.pth")
    preset = Preset(LATENT, Settings(num_iter=1, steps=2))
    convert(tmp_path / "latents.pth", tmp_path / "mar", preset)
    with pytest.raises(ArgumentError, match="needs a tokenizer"):
        registry.made("MARPipeline", config(tmp_path / "mar"))
    torch.save({"model": tiny_autoencoder().state_dict()}, tmp_path / "kl16.ckpt")
    vae = {"vae": str(tmp_path / "kl16.ckpt")}
    pipeline, _ = registry.made("MARPipeline", config(tmp_path / "mar", marfast=vae))
    assert pipeline(request("0", seed=0)).output.shape[1] == 3
