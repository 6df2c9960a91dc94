"""The process that runs the original: patched so that it needs no GPU and no torchvision.

Started by `original.RunningOriginal`; never imported by a process that does much else. It
writes each case's result to DIRECTORY/<index>.pt as soon as it has it.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marfast.verifying.case import Implementation, outcome


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyAttribute(name, (), {})


class _TorchvisionStub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """torchvision as timm imports it: modules with every name, none of which does anything."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = functools.partial(getattr, _AnyAttribute(spec.name, (), {}))  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def patch_process() -> None:
    """Let the original run in this process, without a GPU and without torchvision."""
    sys.meta_path.insert(0, _TorchvisionStub())

    def stay(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self

    torch.Tensor.cuda = stay  # type: ignore[method-assign]
    nn.Module.cuda = stay  # type: ignore[method-assign]
    warnings.simplefilter("ignore")


def _clipping(make: Callable[..., Any], diffloss_of: Callable[[Any], Any]) -> Callable[..., Any]:
    """The constructor with `clip_denoised`: the original's sampler has it, its DiffLoss doesn't."""

    def build(*args: Any, clip_denoised: bool = False, **kwargs: Any) -> Any:
        module = make(*args, **kwargs)
        diffusion = diffloss_of(module).gen_diffusion
        process = type(diffusion)

        def clipped(self: Any, *a: Any, **k: Any) -> Any:
            return process.p_sample_loop(self, *a, **{**k, "clip_denoised": True})

        if clip_denoised:
            diffusion.__class__ = type(process.__name__, (process,), {"p_sample_loop": clipped})
            diffloss_of(module).clip_denoised = True  # for `accelerate`
        return module

    return build


def load_original(checkout: Path) -> Implementation:
    """The original's names, from the checkout and from nowhere else."""
    sys.path.insert(0, str(checkout))
    names = ("models.mar", "models.diffloss", "models.vae", "diffusion")
    modules = [importlib.import_module(name) for name in names]
    for module in modules:
        file = Path(str(module.__file__)).resolve()
        if checkout not in file.parents:
            raise RuntimeError(f"{module.__name__} came from {file}, not from {checkout}")
    mar, head, vae, diffusion = modules
    return Implementation(
        mar=_clipping(mar.MAR, lambda model: model.diffloss),
        diffloss=_clipping(head.DiffLoss, lambda diffloss: diffloss),
        net=head.SimpleMLPAdaLN,
        time_embedder=head.TimestepEmbedder,
        timestep_embedding=head.TimestepEmbedder.timestep_embedding,
        create_diffusion=functools.partial(diffusion.create_diffusion, noise_schedule="cosine"),
        space_timesteps=diffusion.space_timesteps,
        factories={"base": mar.mar_base, "large": mar.mar_large, "huge": mar.mar_huge},
        autoencoder=vae.AutoencoderKL,
    )


def main(checkout: str, source: str, threads: str, indices: str, directory: str) -> None:
    """Run the cases `indices` ("0,3,4") of the module `source`, in order."""
    patch_process()
    torch.set_num_threads(int(threads))
    implementation = load_original(Path(checkout))
    cases = importlib.import_module(source).all_cases()
    for index in map(int, indices.split(",")):
        unfinished = Path(directory, f"{index}.part")
        torch.save(outcome(cases[index], implementation), unfinished)
        os.replace(unfinished, Path(directory, f"{index}.pt"))
