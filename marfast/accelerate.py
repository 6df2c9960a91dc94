"""`marfast.accelerate`: somebody else's MAR, made fast, and `restore`, which undoes it."""

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.generation.loop import sample_tokens
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.model.mar import FastMAR, check_dtype
from marfast.model.presets import Settings

Module = TypeVar("Module", bound=nn.Module)

SAME = 2e-2
"""How far, relative to the largest value, rounding may move what is computed (half precision)."""

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

    def __init__(self, module: nn.Module, backend: str, dtype: torch.dtype | None):
        self.module: Any = module
        self.backend = backend
        self.model = FastMAR(module, dtype)
        self.replaced = module.__dict__.get("sample_tokens")
        self._trusted: bool | None = None

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
        # dropout and label drop are the module's own business
        if module.training or not self._computes_what_the_module_does():
            own = self.replaced or functools.partial(type(module).sample_tokens, module)
            tokens: Tensor = own(bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress)
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
        with self._backend(), _Bar(num_iter, progress) as report:
            tokens = sample_tokens(model, labels, randomness, settings, model.schedule(), report)
        images: Tensor = module.unpatchify(tokens)
        return images

    def _backend(self) -> AbstractContextManager[None]:
        return nullcontext() if self.backend == "auto" else ops.backend(self.backend)

    def _computes_what_the_module_does(self) -> bool:
        """Once: condition vectors of one image, by the module's own encoder and decoder and by the
        thin model. A module that only shares MAR's names is left to its own code, with a warning.
        """
        if self._trusted is None:
            module, model = self.module, self.model
            order = torch.arange(module.seq_len, device=model.device)[None]
            known, predict = order[:, : module.seq_len // 2], order[:, module.seq_len // 2 :]
            mask = torch.zeros(order.shape, device=model.device).index_fill(1, predict[0], 1.0)
            tokens = torch.linspace(-1, 1, order.numel() * module.token_embed_dim)
            tokens = tokens.to(model.device).view(1, -1, module.token_embed_dim)
            with self._backend():
                model.refresh()
                embedding = model.class_embedding(torch.full((1,), -1, device=model.device))
                ours = model.condition(tokens, known, predict, embedding).float()
            with model.autocast():
                x = module.forward_mae_encoder(tokens, mask, embedding)
                theirs = module.forward_mae_decoder(x, mask)[0, predict[0]].float()
            self._trusted = bool((ours - theirs).abs().max() <= SAME * theirs.abs().max())
            if not self._trusted:
                warnings.warn(
                    f"{type(module).__name__} computes something else than MAR's encoder and "
                    "decoder: its own code runs",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return self._trusted


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


def accelerate(module: Module, backend: str = "auto", dtype: torch.dtype | None = None) -> Module:
    """Make a MAR module's own `sample_tokens` fast: same arguments, seeds and random draws, same
    images within the bounds of docs/numerics.md.

    Args:
        module: a MAR: LTH14/mar's, `marfast.reference.MAR`, or any with its parameter names (the
            first call checks that its encoder and decoder compute what MAR's do). Its parameters
            stay its own and may change at any time. In training mode, and for everything
            but `sample_tokens`, the module's own code runs.
        backend: "auto", or one of the backends that `marfast info` lists.
        dtype: what products are computed in, as torch.autocast would: torch.bfloat16 or
            torch.float16; torch.float32 turns an autocast round the call off. None takes what is
            in force: autocast's, or the parameters'. Parameters stay as they are; sums, LayerNorm,
            the head's residual stream and its sampling are float32 always.

    Returns:
        The same object.

    Raises:
        TypeError: it is no MAR; the message says what it lacks.
        ValueError: an unknown backend or dtype.
    """
    if missing := _missing(module):
        raise TypeError(f"module: {type(module).__name__} is no MAR: it lacks {', '.join(missing)}")
    check_dtype(dtype)
    with ops.backend(backend):
        pass
    restore(module)
    module.__dict__["sample_tokens"] = FastSampleTokens(module, backend, dtype)
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: the module's own `sample_tokens` is back. Returns the same object."""
    fast = module.__dict__.get("sample_tokens")
    if isinstance(fast, FastSampleTokens):
        del module.__dict__["sample_tokens"]
        if fast.replaced is not None:
            module.__dict__["sample_tokens"] = fast.replaced
    return module
