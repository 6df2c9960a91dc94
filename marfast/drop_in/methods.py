"""What `accelerate` puts in the place of a module's methods: each takes the arguments of the
original's method and draws its random numbers. Where it can't, the module's own code runs."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.checkpoints import Settings
from marfast.drop_in.install import installed
from marfast.drop_in.trust import differs, on_device, shortened, shrink, tried
from marfast.generation.loop import Progress
from marfast.generation.randomness import BatchRandomness, Generators, step_noises
from marfast.generation.sample import sample_tokens
from marfast.model.block import FastBlock, is_plain_block
from marfast.model.head import FastHead, has_parameters_of_a_head, is_hooked
from marfast.model.mar import FastMAR, Kept
from marfast.model.own import Verdicts, methods_set_on, own_class
from marfast.model.packing import autocast, in_float32
from marfast.model.trial import trial_of
from marfast.reference.diffusion import HeadOptions, sampling_schedule

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
_PROCESS = ("betas", "timestep_map", "posterior_mean_coef1", "posterior_log_variance_clipped")

Own = Callable[..., Any]


class FastMethod(ABC):
    """Stands in for the method `name` of a module. It refers to no module: `__call__` takes the one
    it is called on, and the module's own method."""

    name: ClassVar[str]

    def __init__(self, backend: str, dtype: torch.dtype | None):
        self.backend = backend
        self.dtype = dtype
        self.verdicts = Verdicts()

    @abstractmethod
    def refresh(self) -> None:
        """Take all weights anew at the next call."""

    @classmethod
    @abstractmethod
    def lacks(cls, module: Any) -> str:
        """Why a module's own code has to run, told by looking at it; empty where it needn't."""

    def found(self) -> list[str]:
        """Why a module's own code runs, as calls found out."""
        return self.verdicts.known()

    def backend_in_force(self) -> AbstractContextManager[None]:
        """What `accelerate` was told, for the time of a call."""
        return nullcontext() if self.backend == "auto" else ops.backend(self.backend)

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state)

    @classmethod
    def other_arguments(cls, module: Any) -> str:
        """Why a call of the module's own method would not be one of this."""
        own: Any = getattr(own_class(module), cls.name, None)
        if own is None:
            return f"it has no method {cls.name}"
        if isinstance(module, torch.jit.ScriptModule):
            return "it is compiled"
        if cls.name in methods_set_on(module):
            return f"its {cls.name} was set on the instance"
        theirs = [*inspect.signature(own).parameters][1:]
        ours = [*inspect.signature(cls.__call__).parameters][3:]
        if theirs != ours:
            return f"it takes ({', '.join(theirs)}) where MAR's takes ({', '.join(ours)})"
        return ""


def _told(module: nn.Module, name: str, reason: str) -> str:
    if reason:
        warnings.warn(
            f"{type(module).__name__}.{name}: {reason}: its own code runs",
            RuntimeWarning,
            stacklevel=2,
        )
    return reason


class FastForward(FastMethod):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, 2C]` of a SimpleMLPAdaLN, where no gradient is
    recorded."""

    name = "forward"

    def __init__(self, backend: str, dtype: torch.dtype | None):
        super().__init__(backend, dtype)
        self.refresh()

    def refresh(self) -> None:
        self.head = FastHead()

    @classmethod
    def lacks(cls, module: Any) -> str:
        return has_parameters_of_a_head(module) or cls.other_arguments(module)

    def found(self) -> list[str]:
        return self.head.found()

    def __call__(self, module: Any, own: Own, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        if not _is_recorded(module, x, c):
            with self.backend_in_force(), autocast(x.device, self.dtype):
                head = self.head.bind(module, lambda reason: _told(module, self.name, reason))
                if head.plain:
                    return head.denoise(x, t, c).to(head.weights[0].dtype)
        output: Tensor = own(x, t, c)
        return output


class FastBlockForward(FastMethod):
    """`forward(x [R, L, D]) -> [R, L, D]` of a MAR's transformer block, where no gradient is
    recorded."""

    name = "forward"

    def __init__(self, backend: str, dtype: torch.dtype | None):
        super().__init__(backend, dtype)
        self.refresh()

    def refresh(self) -> None:
        self.block = FastBlock()

    @classmethod
    def lacks(cls, module: Any) -> str:
        return cls.other_arguments(module) or "it is no plain block" * (not is_plain_block(module))

    def found(self) -> list[str]:
        return self.block.found()

    def __call__(self, module: Any, own: Own, x: Tensor) -> Tensor:
        usual = x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 3
        if usual and x.numel() and not _is_recorded(module, x):
            with self.backend_in_force(), autocast(x.device, self.dtype):
                block = self.block.bind(module)
                if block.by_kernels:
                    return block(x)
        output: Tensor = own(x)
        return output


def _is_recorded(module: nn.Module, *inputs: Tensor) -> bool:
    """Whether a call is for gradients."""
    tensors = (*inputs, *module.parameters()) if torch.is_grad_enabled() else ()
    return any(tensor.requires_grad for tensor in tensors)


class FastSample(FastMethod):
    """`sample(z [R, D], temperature, cfg) -> [R, C]` of a DiffLoss; under guidance R = 2N, and the
    second N rows repeat the first."""

    name = "sample"

    def __init__(self, backend: str, dtype: torch.dtype | None):
        super().__init__(backend, dtype)
        self.refresh()

    def refresh(self) -> None:
        self.head = FastHead()

    @classmethod
    def lacks(cls, module: Any) -> str:
        process = getattr(module, "gen_diffusion", None)
        if lacking := [name for name in _PROCESS if not hasattr(process, name)]:
            return f"its gen_diffusion lacks {', '.join(lacking)}"
        if names := methods_set_on(process):
            return f"its gen_diffusion.{names[0]} was set on the instance"
        if names := [name for name in methods_set_on(module) if name != "forward"]:
            return f"its {names[0]} was set on the instance"
        return cls.other_arguments(module) or has_parameters_of_a_head(getattr(module, "net", None))

    @torch.no_grad()
    def __call__(
        self,
        module: Any,
        own: Own,
        z: Tensor,
        temperature: float = 1.0,
        cfg: float | Tensor = 1.0,
    ) -> Tensor:
        usual = z.dim() == 2 and z.device.type in ("cpu", "cuda") and _is_number(cfg)
        if (
            usual
            and not (self.lacks(module) or is_hooked(module.net))
            and not self.why_not(module, bool(cfg != 1.0), self.head)
        ):
            return self.sample(module, z, temperature, cfg)
        sampled: Tensor = own(z, temperature, cfg)
        return sampled

    def sample(self, module: Any, z: Tensor, temperature: float, cfg: float | Tensor) -> Tensor:
        """By the ops."""
        guided = bool(cfg != 1.0)
        schedule, timesteps = (
            part.to(z.device) for part in sampling_schedule(module.gen_diffusion)
        )
        tokens = len(z) // 2 if guided else len(z)
        randomness = BatchRandomness(Generators.global_ones(z.device), 1, range(1))
        with self.backend_in_force(), autocast(z.device, self.dtype):
            head = self.head.bind(module.net)
            noise = randomness.initial_noise(tokens, module.in_channels)
            noises = step_noises(randomness, 1, tokens, module.in_channels, len(timesteps), guided)
            clip_denoised = getattr(module, "clip_denoised", False)
            sampled = head.sample(
                noise=noise.to(z.device),
                step_noises=(chunk.to(z.device) for chunk in noises),
                cond=z,
                schedule=schedule,
                timesteps=timesteps,
                guidance=torch.as_tensor(cfg, dtype=torch.float32, device=z.device).reshape(1),
                options=HeadOptions(guided, float(temperature), clip_denoised),
            )
        return torch.cat([sampled, sampled]) if guided else sampled

    def why_not(self, module: Any, guided: bool, head: FastHead) -> str:
        """Why the module's own code has to run, found out by a trial with this head."""
        mode = guided, torch.get_default_dtype()

        def find_out() -> str:
            reason = tried(partial(self._try, module, guided, head))
            return _told(module, self.name, reason)

        return self.verdicts.of(module, mode, find_out)

    def _try(self, module: Any, guided: bool, head: FastHead) -> str:
        fast = FastSample(self.backend, torch.float32)
        if in_float32(module.net.cond_embed.weight, self.dtype):
            fast.head = head
        trial = trial_of(module)
        trial.gen_diffusion = shortened(trial.gen_diffusion)
        weight = trial.net.cond_embed.weight
        generator = torch.Generator("cpu").manual_seed(0)
        rows = (4 if guided else 2, weight.shape[1])
        z = torch.randn(rows, generator=generator, dtype=torch.float32, device="cpu")
        z, cfg = z.to(weight.device), 2.0 if guided else 1.0
        return differs_but_for_clipping(
            trial,
            trial,
            lambda: trial.sample(z, 0.9, cfg)[:2],
            lambda: fast.sample(trial, z, 0.9, cfg)[:2],
        )


def differs_but_for_clipping(
    trial: Any, diffloss: Any, theirs: Callable[[], Tensor], ours: Callable[[], Tensor]
) -> str:
    """`differs`, for a DiffLoss that may clip. Owners ask for clipping by `clip_denoised`, whether
    its own code looks there (the reference's) or clips always or never (the original's)."""
    device = next(trial.parameters()).device
    if not getattr(diffloss, "clip_denoised", False):
        return differs(device, theirs, ours)

    def clipping(run: Callable[[], Tensor], clip: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            diffloss.clip_denoised = clip
            return run()

        return call

    reasons = [differs(device, clipping(theirs, on), clipping(ours, on)) for on in (False, True)]
    looks = differs(device, clipping(theirs, False), clipping(theirs, True))
    return (reasons[0] or reasons[1]) if looks or all(reasons) else ""


def _is_number(cfg: object) -> bool:
    return not isinstance(cfg, Tensor) or cfg.numel() == 1


class OwnOrders(BatchRandomness):
    """The global generators' numbers, with orders by a module's `sample_orders`."""

    def __init__(self, module: Any, batch: int):
        device = module.mask_token.device
        super().__init__(Generators.global_ones(device), batch, range(batch))
        self.module, self.device = module, device

    def orders(self, seq_len: int) -> Tensor:
        with on_device(self.device):
            orders: Tensor = self.module.sample_orders(self.batch)
        return orders


class FastSampleTokens(FastMethod):
    """`sample_tokens` of a MAR."""

    name = "sample_tokens"

    def __init__(self, backend: str, dtype: torch.dtype | None):
        super().__init__(backend, dtype)
        self.kept = Kept()
        self._sample = FastSample(backend, dtype)

    def refresh(self) -> None:
        self.kept.refresh()

    def model(self, module: Any) -> FastMAR:
        """The thin model of it."""
        return FastMAR(module, self.dtype, self.kept)

    @classmethod
    def lacks(cls, module: Any) -> str:
        if reason := no_mar(module) or cls.other_arguments(module):
            return reason
        if not isinstance(module.class_emb, nn.Embedding):
            return f"its class_emb is no Embedding but {type(module.class_emb).__name__}"
        called_or_not_needed = {"sample_orders", "unpatchify", "forward"}
        if names := [name for name in methods_set_on(module) if name not in called_or_not_needed]:
            return f"its {names[0]} was set on the instance"
        if reason := FastSample.lacks(module.diffloss):
            return f"its diffloss: {reason}"
        if names := methods_set_on(module.diffloss.net):
            return f"its diffloss.net.{names[0]} was set on the instance"
        return ""

    @torch.no_grad()
    def __call__(
        self,
        module: Any,
        own: Own,
        bsz: int,
        num_iter: int = 64,
        cfg: float | Tensor = 1.0,
        cfg_schedule: str = "linear",
        labels: Tensor | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        arguments = (bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress)
        usual = (
            not self.lacks(module)
            and cfg_schedule in ("linear", "constant")
            and 1 <= num_iter <= module.seq_len
            and _is_number(cfg)
            and (labels is None or _are_labels(labels, bsz))
            and module.mask_token.device.type in ("cpu", "cuda")
        )
        if usual and not self.why_not(module, bool(cfg != 1.0), cfg_schedule, labels is not None):
            return self.sample_tokens(module, *arguments)
        images: Tensor = own(*arguments)
        return images

    def sample_tokens(
        self,
        module: Any,
        bsz: int,
        num_iter: int,
        cfg: float | Tensor,
        cfg_schedule: str,
        labels: Tensor | None,
        temperature: float,
        progress: bool = False,
    ) -> Tensor:
        """By the package's loop."""
        model = self.model(module)
        settings = self.settings(module, num_iter, cfg, cfg_schedule, temperature)
        if labels is None:
            labels = torch.full((bsz,), -1, device=model.device)
        else:  # −1 is no label that the module takes
            labels = labels - (labels < 0).to(labels.dtype)
        randomness = OwnOrders(module, bsz)
        with self.backend_in_force(), _bar(num_iter) if progress else nullcontext() as report:
            tokens = sample_tokens(model, labels, randomness, settings, model.schedule(), report)
        images: Tensor = module.unpatchify(tokens)
        return images

    def settings(
        self,
        module: Any,
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
            clip_denoised=getattr(module.diffloss, "clip_denoised", False),
        )

    def why_not(self, module: Any, guided: bool, cfg_schedule: str, labelled: bool) -> str:
        """Why the module's own code has to run, found out by a trial."""
        sample: Any = installed(module.diffloss).get(FastSample.name, self._sample)
        if reason := sample.why_not(module.diffloss, guided, self.kept.head):
            return f"its diffloss.sample: {reason}"
        mode = guided, cfg_schedule, labelled, torch.get_default_dtype()

        def find_out() -> str:
            whole = partial(self._try, module, guided, cfg_schedule, labelled)
            return _told(module, self.name, tried(partial(whole, change=shrink), whole))

        return self.verdicts.of(module, mode, find_out)

    def _try(
        self,
        module: Any,
        guided: bool,
        cfg_schedule: str,
        labelled: bool,
        change: Callable[[Any], None] = lambda trial: None,
    ) -> str:
        fast = FastSampleTokens(self.backend, torch.float32)
        if in_float32(module.mask_token, self.dtype):
            fast.kept = self.kept
        trial = trial_of(module)
        trial.diffloss.gen_diffusion = shortened(trial.diffloss.gen_diffusion)
        change(trial)
        device = trial.mask_token.device
        labels = torch.zeros(1, dtype=torch.int64, device=device) if labelled else None
        iterations = min(2, trial.seq_len)
        arguments = (1, iterations, 2.0 if guided else 1.0, cfg_schedule, labels, 0.9)

        def our_condition() -> Tensor:
            model = fast.model(trial).renewed()
            tokens, order, half = _inputs(trial)
            return model.condition(tokens, order[:, :half], order[:, half:], trial.fake_latent)

        def their_condition() -> Tensor:
            tokens, order, half = _inputs(trial)
            mask = (order >= half).float()
            x = trial.forward_mae_encoder(tokens, mask, trial.fake_latent)
            z: Tensor = trial.forward_mae_decoder(x, mask)[0, half:]
            return z

        return differs(device, their_condition, our_condition) or differs_but_for_clipping(
            trial,
            trial.diffloss,
            lambda: trial.sample_tokens(*arguments),
            lambda: fast.sample_tokens(trial, *arguments),
        )


def _inputs(module: Any) -> tuple[Tensor, Tensor, int]:
    """Tokens of one image, an order, and how many of them are known."""
    device, shape = module.mask_token.device, (1, module.seq_len, module.token_embed_dim)
    count = module.seq_len * module.token_embed_dim
    tokens = torch.linspace(-1, 1, count, dtype=torch.float32, device=device).view(shape)
    return tokens, torch.arange(module.seq_len, device=device)[None], module.seq_len // 2


def _are_labels(labels: object, bsz: int) -> bool:
    kinds = (torch.int32, torch.int64)
    return isinstance(labels, Tensor) and labels.shape == (bsz,) and labels.dtype in kinds


def no_mar(module: nn.Module) -> str:
    """What a MAR has and `module` lacks; empty if nothing."""
    lacking = [*_lacking(module, nn.Module, _MODULES), *_lacking(module, nn.Parameter, _PARAMETERS)]
    return f"it lacks {', '.join(lacking)}" if lacking else ""


def _lacking(module: nn.Module, kind: type[Any], paths: tuple[str, ...]) -> list[str]:
    def found(path: str) -> bool:
        owner: Any = module
        for name in path.split("."):
            owner = getattr(owner, name, None)
        return isinstance(owner, kind)

    return [path for path in paths if not found(path)]


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    """The original's progress bar."""
    from tqdm.auto import tqdm

    with tqdm(total=total) as bar:
        yield lambda done, of: bar.update()
