"""Whole images of a MAR, phase by phase: the model, and whoever runs it.

The shapes of all K iterations are known beforehand. Some of them are timed, on random tokens at
their shapes, and stand for all.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marfast import ops, profiling
from marfast.checkpoints import Architecture, Settings, get_preset
from marfast.generation.loop import Loop
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.model import FastMAR
from marfast.ops.choice import BackendName
from marfast.reference import denoise as reference
from marfast.reference.mar import first_in_order, random_orders

PHASES = ("encoder", "decoder", "head", "host")
Phases = dict[str, float]


def random_module(preset: str, steps: int) -> Any:
    """A model of the paper with weights that keep tokens near 1."""
    module = get_preset(preset).architecture.build(steps=str(steps), clip_denoised=True)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(value.shape, generator=generator) * 0.02
        + (1.0 if name.endswith(("norm1.weight", "norm2.weight")) else 0.0)
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(weights, assign=True)
    return module  # its weights require gradients: only such are kept by autocast's cache


@dataclass
class Iteration:
    """Iteration k of a generation of `batch` images, its inputs drawn."""

    module: Any
    settings: Settings
    steps: int
    batch: int
    k: int

    def __post_init__(self) -> None:
        self.labels = torch.arange(self.batch) % self.module.num_classes
        model = FastMAR(self.module)
        self.loop = self.loop_of(model)
        loop, k = self.loop, self.k
        orders = random_orders(self.batch, loop.seq_len, np.random.RandomState(k))
        self.orders = orders.to(model.device)
        generator = torch.Generator().manual_seed(k)
        tokens = torch.randn(self.batch, loop.seq_len, loop.channels, generator=generator)
        self.tokens = tokens.to(model.device)
        self.schedule = loop.schedules[k]
        self.masked, self.left = loop.masked[k], loop.left[k]

    def loop_of(self, model: FastMAR) -> Loop:
        generators = Generators.seeded(self.k, model.device)
        randomness = BatchRandomness(generators, self.batch, range(self.batch))
        schedules = [model.schedule(self.steps)] * self.settings.num_iter
        return Loop(model, self.labels, randomness, self.settings, schedules)

    def rows(self) -> int:
        """How many rows a guided token has."""
        return 2 if self.loop.guided else 1

    def reference(self, module: Any) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Encoder and decoder by the module's own methods; z is the decoder's result."""
        copies = self.rows()
        orders, tokens = self.orders.repeat(copies, 1), self.tokens.repeat(copies, 1, 1)
        mask = first_in_order(orders, self.masked)
        predict = (mask - first_in_order(orders, self.left)).bool()
        labels = self.labels.to(orders.device)
        embedding = module.class_emb(labels)
        if copies == 2:
            embedding = torch.cat([embedding, module.fake_latent.repeat(len(labels), 1)])
        hidden: list[Tensor] = []

        def encoder() -> Tensor:
            hidden[:] = [module.forward_mae_encoder(tokens, mask, embedding)]
            return hidden[0]

        def decoder() -> Tensor:
            z: Tensor = module.forward_mae_decoder(hidden[0], mask)[predict]
            return z

        return encoder, decoder

    def condition(self, model: FastMAR) -> Tensor:
        """z by the thin model."""
        copies = self.rows()
        known = self.orders[:, self.masked :].sort(dim=1).values.repeat(copies, 1)
        predict = self.orders[:, self.left : self.masked].sort(dim=1).values.repeat(copies, 1)
        embedding = model.class_embedding(self.labels.to(self.orders.device))
        if copies == 2:
            no_class = torch.full_like(self.labels, -1).to(self.orders.device)
            embedding = torch.cat([embedding, model.class_embedding(no_class)])
        return model.condition(self.tokens.repeat(copies, 1, 1), known, predict, embedding)

    def head_arguments(self, z: Tensor) -> tuple[Any, ...]:
        """Of `FastMAR.sample_head`."""
        count = self.batch * (self.masked - self.left)
        generator = torch.Generator().manual_seed(self.k)
        sizes = (count, self.loop.channels), (self.steps, count, self.loop.channels)
        noise, step_noise = (torch.randn(size, generator=generator).to(z.device) for size in sizes)
        guidance = self.loop.guidance[self.k]
        return z, noise, [step_noise], self.schedule, guidance, self.loop.options

    def flops(self) -> dict[str, float]:
        """What the thin model computes in this iteration, by phase."""
        rows, net = self.rows() * self.batch, self.module.diffloss.net
        made = transformer_flops(self.module, self.masked, self.left)
        found = {name: rows * done for name, done in made.items()}
        tokens = rows * (self.masked - self.left)
        a_step = 2.0 * tokens * (5 * net.num_res_blocks + 2) * net.model_channels**2
        return found | {"head": self.steps * a_step}


def transformer_flops(m: Any, masked: int, left: int) -> dict[str, float]:
    """What encoder and decoder compute of one image, unguided, where `masked` tokens are not known
    yet and `left` won't be: a block has 24 D² a position and its attention; of the last one only
    qkv (6 D²) and the keys see all positions, the rest those to predict."""

    def blocks(depth: int, width: int, positions: int) -> float:
        return depth * (24.0 * width**2 * positions + 4.0 * width * positions**2)

    encoder, decoder = m.encoder_norm.weight.numel(), m.decoder_norm.weight.numel()
    positions = m.buffer_size + m.seq_len
    last = 6.0 * decoder**2 * positions + (18 * decoder + 4 * positions) * decoder * (masked - left)
    return {
        "encoder": blocks(len(m.encoder_blocks), encoder, positions - masked),
        "decoder": blocks(len(m.decoder_blocks) - 1, decoder, positions) + last,
    }


class Eager:
    """A module's own encoder and decoder, and the reference's loop of its head. `around` is a
    context such as autocast's."""

    def __init__(self, module: Any, around: Callable[[], Any]):
        self.module, self.around = module, around
        self.thin = FastMAR(module)

    def prepare(self, iteration: Iteration) -> "EagerRun":
        return EagerRun(self, iteration)


class EagerRun:
    """One iteration of it."""

    def __init__(self, who: Eager, iteration: Iteration):
        self.who = who
        self.encoder, self.decoder = iteration.reference(who.module)
        with torch.no_grad(), who.around():
            self.encoder()
            self.z = self.decoder().float()
        self.head_arguments = iteration.head_arguments(self.z)
        who.thin.update()

    def head(self) -> Tensor:
        weights = [*self.who.module.diffloss.net.parameters()]
        z, noise, [step_noise], schedule, guidance, options = self.head_arguments
        with ops.backend("reference"):
            return ops.ddpm_sample(
                noise,
                step_noise,
                z,
                weights,
                schedule.coefficients,
                schedule.timesteps,
                guidance,
                temperature=options.temperature,
                clip_denoised=options.clip_denoised,
            )

    def head_in_float64(self) -> Tensor:
        """The tokens without float32's rounding."""
        z, noise, [step_noise], schedule, guidance, options = self.head_arguments
        return reference.ddpm_sample(
            noise.double(),
            step_noise.double(),
            z.double(),
            [weight.double() for weight in self.who.module.diffloss.net.parameters()],
            schedule.coefficients.double(),
            schedule.timesteps,
            guidance.double(),
            options,
        )

    def phases(self) -> dict[str, Callable[[], Tensor]]:
        return {"encoder": self.encoder, "decoder": self.decoder, "head": self.head}

    def __call__(self) -> Phases:
        times: Phases = {}
        with self.who.around():
            for name, run in self.phases().items():
                with profiling.timed() as seconds, profiling.range(name):
                    run()
                times[name] = seconds[name]
        return times


class OriginalRun(EagerRun):
    """The original's module with its own `DiffLoss.sample`."""

    def __init__(self, who: Eager, iteration: Iteration):
        super().__init__(who, iteration)
        self.cfg = iteration.loop.guidance[iteration.k] if iteration.loop.guided else 1.0
        self.temperature = iteration.settings.temperature

    def head(self) -> Tensor:
        sampled: Tensor = self.who.module.diffloss.sample(self.z, self.temperature, self.cfg)
        return sampled


class Original(Eager):
    """As `Eager`, head included."""

    def prepare(self, iteration: Iteration) -> OriginalRun:
        return OriginalRun(self, iteration)


class Ours:
    """The thin model in the package's own loop."""

    def __init__(self, module: Any, dtype: torch.dtype | None, backend: BackendName = "auto"):
        self.model, self.backend = FastMAR(module, dtype), backend

    def prepare(self, iteration: Iteration) -> "OursRun":
        return OursRun(self, iteration)


class OursRun:
    """One iteration of it. What is neither encoder, decoder nor head is the host's."""

    def __init__(self, who: Ours, iteration: Iteration):
        self.who, self.iteration = who, iteration
        with ops.backend(who.backend):
            who.model.update()
            self.loop = iteration.loop_of(who.model)
            self.loop.begin()
            self.loop.orders.copy_(iteration.orders)
            self.loop.tokens.copy_(iteration.tokens)

    def __call__(self) -> Phases:
        k = self.iteration.k
        with ops.backend(self.who.backend), profiling.timed() as times:
            self.loop.iteration(k)
        found = {name: times[name] for name in PHASES[:3]}
        return found | {"host": times[f"iteration {k}"] - sum(found.values())}


def original_module(module: Any, what: Architecture, implementation: Any, steps: int) -> Any:
    """The original's MAR of the same architecture and weights."""
    architecture = asdict(what)
    eps = architecture.pop("norm_eps")
    built = implementation.mar(
        norm_layer=lambda width: nn.LayerNorm(width, eps=eps),
        num_sampling_steps=str(steps),
        clip_denoised=module.diffloss.clip_denoised,
        **architecture,
    ).eval()
    built.load_state_dict(module.state_dict())
    return built


def with_compiled_blocks(module: Any) -> Any:
    """A copy that shares all weights, its transformer blocks under torch.compile."""
    torch.compiler.reset()  # of earlier workloads, which count against a limit of shapes
    made = copy.copy(module)
    made._modules = dict(module._modules)
    for name in ("encoder_blocks", "decoder_blocks"):
        compiled: Any = [torch.compile(block, dynamic=True) for block in getattr(module, name)]
        made._modules[name] = nn.ModuleList(compiled)
    return made
