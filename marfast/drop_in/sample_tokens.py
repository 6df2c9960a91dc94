"""`sample_tokens` of a MAR, made fast."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from marfast.checkpoints import Settings
from marfast.drop_in.chosen import OWN, Chosen
from marfast.drop_in.install import installed
from marfast.drop_in.methods import FastMethod, Own, told
from marfast.drop_in.sample import FastSample, are_numbers, differs_but_for_clipping
from marfast.drop_in.trust import differs, on_device, shortened, shrink, tried
from marfast.errors import ArgumentError
from marfast.generation.progress import Progress, reporting
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.generation.sample import sample_tokens
from marfast.generation.schedules import schedules_of
from marfast.generation.start import Start
from marfast.model.mar import FastMAR, Kept
from marfast.model.own import methods_set_on
from marfast.model.packing import in_float32
from marfast.model.schedule import Schedule
from marfast.model.trial import trial_of
from marfast.ops.choice import BackendName
from marfast.ops.runtime import check_memory
from marfast.ops.self_check import is_capturing

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


_ELSEWHERE = {
    **dict.fromkeys(
        ("sampler", "steps", "eta", "guidance_interval"), "marfast.accelerate, which takes it"
    ),
    "clip_denoised": "the module, as diffloss.clip_denoised",
}
"""Settings of `generate` that a call of `sample_tokens` has no say in, and what has."""


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
    samples = True

    def __init__(self, backend: BackendName, dtype: torch.dtype | None, chosen: Chosen = OWN):
        self.kept = Kept()
        self._sample = FastSample(backend, dtype)
        super().__init__(backend, dtype, chosen)

    def refresh(self) -> None:
        self.kept.refresh()

    def warn_of_training(self, module: Any) -> None:
        super().warn_of_training(module)
        if inner := installed(module.diffloss).get(FastSample.name):
            inner.told_of_training = True  # one line does for both

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
        check_memory(labels=labels)
        usual = (
            not self.lacks(module)
            and cfg_schedule in ("linear", "constant")
            and isinstance(num_iter, Integral)
            and not isinstance(num_iter, bool)
            and 1 <= num_iter <= module.seq_len
            and are_numbers(cfg, temperature)
            and module.mask_token.device.type in ("cpu", "cuda")
            and getattr(labels, "is_meta", False) is False
        )
        if usual and not self.why_not(module, bool(cfg != 1.0), cfg_schedule, labels is not None):
            if labels is not None:
                labels = _checked(labels, bsz, module)
            return self.sample_tokens(
                module, bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress
            )
        self.passed_by(module)
        images: Tensor = own(bsz, num_iter, cfg, cfg_schedule, labels, temperature, progress)
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
        settings = self.settings(module, num_iter, cfg, cfg_schedule, temperature)
        if labels is None:
            labels = torch.full((bsz,), -1, device=module.mask_token.device)
        with reporting(bool(progress), num_iter) as report:
            images: Tensor = module.unpatchify(self.tokens(module, labels, settings, report))
        return images

    def tokens(
        self,
        module: Any,
        labels: Tensor,
        settings: Settings,
        report: Progress | None = None,
        start: Start | None = None,
    ) -> Tensor:
        """Tokens [B, L, C] for labels [B] (−1: no class), drawn as the module does."""
        model, randomness = self.model(module), OwnOrders(module, len(labels))
        schedules = self.schedules(model, settings)
        with self.backend_in_force():
            return sample_tokens(model, labels, randomness, settings, schedules, report, start)

    def settings(
        self,
        module: Any,
        num_iter: int,
        cfg: float | Tensor = 1.0,
        cfg_schedule: str = "linear",
        temperature: float = 1.0,
    ) -> Settings:
        """Those of a call, with the sampler that `accelerate` was told."""
        return Settings(
            num_iter=num_iter,
            cfg=cfg,  # type: ignore[arg-type]  # the original takes a tensor of one element, too
            cfg_schedule=cfg_schedule,  # type: ignore[arg-type]  # checked by the loop
            temperature=float(temperature),
            clip_denoised=getattr(module.diffloss, "clip_denoised", False),
            **self.chosen.settings(),
        )

    def settings_of(self, module: Any, num_iter: int | None = None, **given: Any) -> Settings:
        """`settings`, checked; num_iter None takes `sample_tokens`' default, or one iteration a
        token where there are fewer. Raises ArgumentError for what can't be sampled with."""
        for name, place in _ELSEWHERE.items():
            if given.get(name) is not None:
                raise ArgumentError(name, repr(given[name]), f"it is told by {place}")
        if num_iter is None:
            num_iter = min(Settings.num_iter, module.seq_len)
        known = {k: v for k, v in given.items() if v is not None}
        numbers = {k: v.item() if isinstance(v, Tensor) else v for k, v in known.items()}
        Settings().replace(module.seq_len, num_iter=num_iter, **numbers)
        return self.settings(module, num_iter, **known)

    def schedules(self, model: FastMAR, settings: Settings) -> list[Schedule]:
        """One for each iteration; steps are the module's own unless others were asked for."""
        return schedules_of(model, settings, own=self.chosen.steps is None)

    def why_not(self, module: Any, guided: bool, cfg_schedule: str, labelled: bool) -> str:
        """Why the module's own code has to run, found out by a trial."""
        sample: Any = installed(module.diffloss).get(FastSample.name, self._sample)
        if reason := sample.why_not(module.diffloss, guided, self.kept.head):
            return f"its diffloss.sample: {reason}"
        mode = guided, cfg_schedule, labelled, torch.get_default_dtype()

        def find_out() -> str:
            whole = partial(self._try, module, guided, cfg_schedule, labelled)
            return told(module, self.name, tried(partial(whole, change=shrink), whole))

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


def _checked(labels: object, bsz: int, module: Any) -> Tensor:
    """Labels [bsz], or one for all; ArgumentError for what the module's own code would raise an
    error of an embedding for, or none at all."""
    classes, device = module.class_emb.num_embeddings, module.mask_token.device
    allowed = f"allowed are {bsz} whole numbers from 0 to {classes - 1} in a tensor on {device}"
    if not isinstance(labels, Tensor):
        raise ArgumentError("labels", type(labels).__name__, allowed)
    if labels.dtype not in (torch.int32, torch.int64):
        raise ArgumentError("labels", labels.dtype, allowed)
    if labels.shape not in ((bsz,), (1,)):
        raise ArgumentError("labels", f"shape {[*labels.shape]} for a bsz of {bsz}", allowed)
    if labels.device != device:
        raise ArgumentError("labels", f"on {labels.device}", allowed)
    if not is_capturing() and labels.numel():
        least, most = (int(end) for end in labels.aminmax())
        if least < 0 or most >= classes:
            raise ArgumentError("labels", least if least < 0 else most, allowed)
    return labels.expand(bsz)


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
