"""What `accelerate` puts in the place of a module's methods: each takes the arguments of the
original's method and draws its random numbers. In training mode the module's own code runs."""

import functools
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.checkpoints import Settings
from marfast.generation.loop import Progress
from marfast.generation.randomness import BatchRandomness, Generators, step_noises
from marfast.generation.sample import sample_tokens
from marfast.model.head import FastHead
from marfast.model.mar import FastMAR
from marfast.model.packing import autocast
from marfast.reference.diffusion import HeadOptions, sampling_schedule

Function = TypeVar("Function", bound=Callable[..., Any])

SAME = 2e-2
"""How far, relative to the largest value, rounding may move what is computed (half precision)."""


def uncompiled(function: Function) -> Function:
    """torch.compiler.disable, but for the import of the compiler where nobody has imported it."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        compiling = "torch._dynamo" in sys.modules
        return (torch.compiler.disable(function) if compiling else function)(*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


class FastMethod(ABC):
    """Stands in for the method `name` of one module."""

    name: ClassVar[str]

    def __init__(self, module: nn.Module, backend: str, dtype: torch.dtype | None):
        self.module: Any = module
        self.backend = backend
        self.replaced = module.__dict__.get(self.name)

    @abstractmethod
    def refresh(self) -> None:
        """Take all weights anew at the next call."""

    @property
    def own(self) -> Callable[..., Any]:
        """The module's own method."""
        own = self.replaced or functools.partial(getattr(type(self.module), self.name), self.module)
        return functools.partial(_on_this_machine, own)

    def backend_in_force(self) -> AbstractContextManager[None]:
        """What `accelerate` was told, for the time of a call."""
        return nullcontext() if self.backend == "auto" else ops.backend(self.backend)


def installed(module: nn.Module) -> list[tuple[nn.Module, FastMethod]]:
    """What `accelerate` has put into a module and its parts, each with its owner."""
    return [
        (part, method)
        for part in module.modules()
        for method in vars(part).values()
        if isinstance(method, FastMethod)
    ]


def _on_this_machine(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return own(*args, **kwargs)
    except (AssertionError, RuntimeError) as error:
        if torch.cuda.is_available() or "CUDA" not in str(error).upper():
            raise
        raise RuntimeError(
            "the module's own code asks for CUDA, which is not here: call it in eval mode, where "
            "marfast's code runs in its place, or write .to(x.device) for .cuda() in it"
        ) from error


class _FastHeadMethod(FastMethod):
    def __init__(self, module: nn.Module, backend: str, dtype: torch.dtype | None):
        super().__init__(module, backend, dtype)
        self.dtype = dtype
        self.head = FastHead()

    def refresh(self) -> None:
        self.head = FastHead()


class FastForward(_FastHeadMethod):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, 2C]` of a SimpleMLPAdaLN, where no gradient is
    recorded."""

    name = "forward"

    @uncompiled
    def __call__(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        tensors = (x, c, *self.module.parameters())
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if self.module.training or differentiable:
            output: Tensor = self.own(x, t, c)
            return output
        with self.backend_in_force(), autocast(x.device, self.dtype):
            self.head.update(self.module)
            if not self.head.plain:
                output = self.own(x, t, c)
                return output
            return self.head.denoise(x, t, c).to(self.head.weights[0].dtype)


class FastSample(_FastHeadMethod):
    """`sample(z [R, D], temperature, cfg) -> [R, C]` of a DiffLoss; under guidance R = 2N, and the
    second N rows repeat the first."""

    name = "sample"

    @uncompiled
    @torch.no_grad()
    def __call__(self, z: Tensor, temperature: float = 1.0, cfg: float | Tensor = 1.0) -> Tensor:
        module, guided = self.module, bool(cfg != 1.0)
        if module.training:
            own: Tensor = self.own(z, temperature, cfg)
            return own
        schedule, timesteps = (
            part.to(z.device) for part in sampling_schedule(module.gen_diffusion)
        )
        tokens = len(z) // 2 if guided else len(z)
        randomness = BatchRandomness(Generators.global_ones(z.device), 1, range(1))
        with self.backend_in_force(), autocast(z.device, self.dtype):
            self.head.update(module.net)
            noise = randomness.initial_noise(tokens, module.in_channels)
            noises = step_noises(randomness, 1, tokens, module.in_channels, len(timesteps), guided)
            clip_denoised = getattr(module, "clip_denoised", False)
            sampled = self.head.sample(
                noise=noise.to(z.device),
                step_noises=(chunk.to(z.device) for chunk in noises),
                cond=z,
                schedule=schedule,
                timesteps=timesteps,
                guidance=torch.as_tensor(cfg, dtype=torch.float32, device=z.device).reshape(1),
                options=HeadOptions(guided, float(temperature), clip_denoised),
            )
        return torch.cat([sampled, sampled]) if guided else sampled


class FastSampleTokens(FastMethod):
    """`sample_tokens` of a MAR."""

    name = "sample_tokens"

    def __init__(self, module: nn.Module, backend: str, dtype: torch.dtype | None):
        super().__init__(module, backend, dtype)
        self.model = FastMAR(module, dtype)
        self._trusted: bool | None = None

    @uncompiled
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
            own: Tensor = self.own(bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress)
            return own
        settings = self.settings(num_iter, cfg, cfg_schedule, temperature)
        if labels is None:
            labels = torch.full((bsz,), -1, device=model.device)
        randomness = BatchRandomness(Generators.global_ones(model.device), bsz, range(bsz))
        with self.backend_in_force(), _bar(num_iter) if progress else nullcontext() as report:
            tokens = sample_tokens(model, labels, randomness, settings, model.schedule(), report)
        images: Tensor = module.unpatchify(tokens)
        return images

    def settings(
        self,
        num_iter: int = 64,
        cfg: float | Tensor = 1.0,
        cfg_schedule: str = "linear",
        temperature: float = 1.0,
    ) -> Settings:
        """Those of a call; steps are the module's own."""
        return Settings(
            num_iter=num_iter,
            cfg=cfg,  # type: ignore[arg-type]  # the original takes a tensor of one element, too
            cfg_schedule=cfg_schedule,  # type: ignore[arg-type]  # checked by the loop
            temperature=float(temperature),
            clip_denoised=getattr(self.module.diffloss, "clip_denoised", False),
        )

    def refresh(self) -> None:
        self.model.refresh()

    def _computes_what_the_module_does(self) -> bool:
        """Once: condition vectors of one image, by the module's own encoder and decoder and by the
        thin model. A module that only shares MAR's names is left to its own code, with a warning.
        """
        if self._trusted is None:
            module, device = self.module, self.model.device
            order = torch.arange(module.seq_len, device=device)[None]
            known, predict = order[:, : module.seq_len // 2], order[:, module.seq_len // 2 :]
            mask = torch.zeros(order.shape, dtype=torch.float32, device=device)
            mask = mask.index_fill(1, predict[0], 1.0)
            count = order.numel() * module.token_embed_dim
            tokens = torch.linspace(-1, 1, count, dtype=torch.float32, device="cpu")
            tokens = tokens.to(module.z_proj.weight).view(1, -1, module.token_embed_dim)
            in_force = torch.is_autocast_enabled(device.type) or self.model.dtype is not None
            # half precision may overflow in the module's own code: not what is asked here
            model = FastMAR(module, torch.float32) if in_force else self.model
            with self.backend_in_force():
                model.update()
                embedding = model.class_embedding(torch.full((1,), -1, device=device))
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


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    """The original's progress bar."""
    from tqdm.auto import tqdm

    with tqdm(total=total) as bar:
        yield lambda done, of: bar.update()
