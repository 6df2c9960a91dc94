"""`marfast.accelerate`: somebody else's MAR, made fast, and `restore`, which undoes it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.generation.loop import sample_tokens
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.model.mar import FastMAR
from marfast.model.presets import Settings

Module = TypeVar("Module", bound=nn.Module)

_MODULES = (
    "class_emb",
    "z_proj",
    "z_proj_ln",
    "encoder_blocks",
    "encoder_norm",
    "decoder_embed",
    "decoder_blocks",
    "decoder_norm",
    "diffloss.net",
)
_PARAMETERS = (
    "fake_latent",
    "mask_token",
    "encoder_pos_embed_learned",
    "decoder_pos_embed_learned",
    "diffusion_pos_embed_learned",
)


class FastSampleTokens:
    """Stands in for `sample_tokens` of one MAR module; takes the arguments of the original's."""

    def __init__(self, module: nn.Module, backend: str):
        self.module: Any = module
        self.backend = backend
        self.model = FastMAR(module)

    @torch.no_grad()
    def __call__(
        self,
        bsz: int,
        num_iter: int = 64,
        cfg: float | Tensor = 1.0,
        cfg_schedule: str = "linear",
        labels: Tensor | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        module, model = self.module, self.model
        if module.training:  # dropout and label drop are the module's own business
            tokens: Tensor = type(module).sample_tokens(
                module, bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress
            )
            return tokens
        settings = Settings(
            num_iter=num_iter,
            cfg=cfg,  # type: ignore[arg-type]  # the original takes a tensor of one element, too
            cfg_schedule=cfg_schedule,  # type: ignore[arg-type]  # checked by the loop
            temperature=float(temperature),
            clip_denoised=getattr(module.diffloss, "clip_denoised", False),
        )
        if labels is None:
            labels = torch.full((bsz,), -1, device=model.device)
        randomness = BatchRandomness(Generators.global_ones(model.device), bsz, range(bsz))
        with ops.backend(self.backend), _Bar(num_iter, progress) as report:
            tokens = sample_tokens(model, labels, randomness, settings, model.schedule(), report)
        images: Tensor = module.unpatchify(tokens)
        return images


class _Bar:
    """The original's progress bar, where it is asked for."""

    def __init__(self, total: int, wanted: bool):
        self.total = total
        self.wanted = wanted
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        if self.wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.total)
        return lambda done, of: None if self.bar is None else self.bar.update()

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _missing(module: nn.Module) -> list[str]:
    def found(kind: type[Any], path: str) -> bool:
        owner: Any = module
        for name in path.split("."):
            owner = getattr(owner, name, None)
        return isinstance(owner, kind)

    return [
        *(name for name in _MODULES if not found(nn.Module, name)),
        *(name for name in _PARAMETERS if not found(nn.Parameter, name)),
    ]


def accelerate(module: Module, backend: str = "auto") -> Module:
    """Make a MAR module's own `sample_tokens` fast: same arguments, seeds and random draws, same
    images within the bounds of docs/numerics.md.

    Args:
        module: a MAR: LTH14/mar's, `marfast.reference.MAR`, or any with its parameter names. Its
            parameters stay its own and may change at any time. In training mode, and for everything
            but `sample_tokens`, the module's own code runs.
        backend: "auto", or one of the backends that `marfast info` lists.

    Returns:
        The same object.

    Raises:
        TypeError: it is no MAR; the message says what it lacks.
        ValueError: an unknown backend.
    """
    if missing := _missing(module):
        raise TypeError(f"module: {type(module).__name__} is no MAR: it lacks {', '.join(missing)}")
    with ops.backend(backend):
        pass
    restore(module)
    module.__dict__["sample_tokens"] = FastSampleTokens(module, backend)
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: the module's own `sample_tokens` is back. Returns the same object."""
    if isinstance(module.__dict__.get("sample_tokens"), FastSampleTokens):
        del module.__dict__["sample_tokens"]
    return module
