"""`sample` of a DiffLoss, made fast."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from marfast.drop_in.methods import FastMethod, Own, told
from marfast.drop_in.trust import differs, shortened, tried
from marfast.generation.randomness import BatchRandomness, Generators, step_noises
from marfast.model.head import FastHead, is_hooked
from marfast.model.head_kind import MARS
from marfast.model.own import methods_set_on
from marfast.model.packing import autocast, in_float32
from marfast.model.schedule import Schedule
from marfast.model.trial import trial_of
from marfast.reference.diffusion import HeadOptions

_PROCESS = ("betas", "timestep_map", "posterior_mean_coef1", "posterior_log_variance_clipped")


class FastSample(FastMethod):
    """`sample(z [R, D], temperature, cfg) -> [R, C]` of a DiffLoss; under guidance R = 2N, and the
    second N rows repeat the first."""

    name = "sample"
    samples = True

    def refresh(self) -> None:
        self.head = FastHead()
        self.schedules: dict[torch.device, tuple[Any, Schedule]] = {}

    @classmethod
    def lacks(cls, module: Any) -> str:
        process = getattr(module, "gen_diffusion", None)
        if lacking := [name for name in _PROCESS if not hasattr(process, name)]:
            return f"its gen_diffusion lacks {', '.join(lacking)}"
        if names := methods_set_on(process):
            return f"its gen_diffusion.{names[0]} was set on the instance"
        if names := [name for name in methods_set_on(module) if name != "forward"]:
            return f"its {names[0]} was set on the instance"
        return cls.other_arguments(module) or is_no_ddpm_head(getattr(module, "net", None))

    @torch.no_grad()
    def __call__(
        self,
        module: Any,
        own: Own,
        z: Tensor,
        temperature: float = 1.0,
        cfg: float | Tensor = 1.0,
    ) -> Tensor:
        usual = z.dim() == 2 and z.device.type in ("cpu", "cuda") and are_numbers(cfg, temperature)
        if (
            usual
            and not (self.lacks(module) or is_hooked(module.net))
            and not self.why_not(module, bool(cfg != 1.0), self.head)
        ):
            return self.sample(module, z, temperature, cfg)
        self.passed_by(module)
        sampled: Tensor = own(z, temperature, cfg)
        return sampled

    def sample(self, module: Any, z: Tensor, temperature: float, cfg: float | Tensor) -> Tensor:
        """By the ops."""
        guided = bool(cfg != 1.0)
        schedule = self.schedule(module, z.device)
        tokens = len(z) // 2 if guided else len(z)
        randomness = BatchRandomness(Generators.global_ones(z.device), 1, range(1))
        with self.backend_in_force(), autocast(z.device, self.dtype):
            head = self.head.bind(module.net)
            noise = randomness.initial_noise(tokens, module.in_channels)
            noises = step_noises(randomness, 1, tokens, module.in_channels, len(schedule), guided)
            clip_denoised = getattr(module, "clip_denoised", False)
            sampled = head.sample(
                noise=noise.to(z.device),
                step_noises=(chunk.to(z.device) for chunk in noises),
                cond=z,
                schedule=schedule,
                guidance=torch.as_tensor(cfg, dtype=torch.float32, device=z.device).reshape(1),
                options=HeadOptions(1 + guided, float(temperature), clip_denoised),
            )
        return torch.cat([sampled, sampled]) if guided else sampled

    def schedule(self, module: Any, device: torch.device) -> Schedule:
        """The sampler's on a device, of the module's process as it is now."""
        process, schedule = self.schedules.get(device, (None, None))
        if schedule is None or process is not module.gen_diffusion:
            schedule = self.chosen.schedule(module, device)
            self.schedules[device] = module.gen_diffusion, schedule
        return schedule

    def why_not(self, module: Any, guided: bool, head: FastHead) -> str:
        """Why the module's own code has to run, found out by a trial with this head."""
        mode = guided, torch.get_default_dtype()

        def find_out() -> str:
            reason = tried(partial(self._try, module, guided, head))
            return told(module, self.name, reason)

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


def is_no_ddpm_head(net: Any) -> str:
    """Why a DiffLoss's net isn't MAR's head; empty if it is."""
    try:
        spec = MARS.parameters(net).spec
    except ValueError as error:
        return str(error)
    return "" if spec.variance else "its head predicts no variance"


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


def are_numbers(*values: object) -> bool:
    """As a scale or a temperature is; anything else is for the module's own code to refuse."""
    return all(
        value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, Real)
        for value in values
    )
