"""The pictures of docs/sampler.md: one image of `fashion-mnist`, from its order to its pixels.

python -m benchmarks.studies.sampler
"""

from collections.abc import Iterable

import matplotlib
import numpy as np
import torch
from torch import Tensor

import marfast
from benchmarks.studies import IMAGES
from marfast import ops
from marfast.generation.loop import Loop
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.generation.schedules import schedules_of
from marfast.reference.mar import guidance_scale, mask_lengths

matplotlib.use("Agg")
from matplotlib import pyplot

LABEL, SEED = 7, 3  # a sneaker
MASKED, KNOWN, NOW = 0.15, 0.75, 1.0
GREY = {"cmap": "gray", "vmin": -1, "vmax": 1}


class Shown:
    """A generation that is stopped after each iteration to be looked at."""

    def __init__(self) -> None:
        self.pipeline = marfast.load("fashion-mnist")
        model, self.settings = self.pipeline.model, self.pipeline.settings
        model.update()
        randomness = BatchRandomness(Generators.seeded(SEED, model.device), 1, range(1))
        schedules = schedules_of(model, self.settings)
        self.loop = Loop(model, torch.tensor([LABEL]), randomness, self.settings, schedules)
        self.side = int(self.loop.seq_len**0.5)
        self.heads: list[tuple[Tensor, Tensor, Tensor]] = []  # z, noise and step noise
        own = model.sample_head

        def sample_head(
            z: Tensor, noise: Tensor, step_noises: Iterable[Tensor], *rest: object
        ) -> Tensor:
            step_noise = torch.cat([*step_noises])
            self.heads.append((z, noise, step_noise))
            return own(z, noise, [step_noise], *rest)  # type: ignore[arg-type]

        model.sample_head = sample_head  # type: ignore[method-assign]

    def roles(self, k: int) -> np.ndarray:
        """What each token is in iteration k: masked, known or predicted now."""
        order = self.loop.orders[0]
        role = torch.full((self.loop.seq_len,), MASKED)
        role[order[self.loop.masked[k] :]] = KNOWN
        role[order[self.loop.left[k] : self.loop.masked[k]]] = NOW
        return role.view(self.side, self.side).numpy()

    def image(self, k: int) -> np.ndarray:
        """The pixels after iteration k; 0, mid-grey, where nothing is known yet."""
        return self.pipeline.model.module.unpatchify(self.loop.tokens)[0, 0].numpy()


@torch.no_grad()
def iterations(shown: Shown) -> None:
    count = shown.settings.num_iter
    figure, axes = pyplot.subplots(2, count, figsize=(1.7 * count, 3.8), layout="constrained")
    for k in range(count):
        shown.loop.iteration(k)
        axes[0, k].imshow(shown.roles(k), cmap="magma", vmin=0, vmax=1.1)
        axes[0, k].set_title(f"k = {k}: {shown.loop.masked[k] - shown.loop.left[k]} tokens", size=9)
        axes[1, k].imshow(shown.image(k), **GREY)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, 0].set_ylabel("dark: masked, red: known,\nbright: predicted now", size=8)
    axes[1, 0].set_ylabel("image after it", size=9)
    save(figure, "sampler-iterations.png")


@torch.no_grad()
def denoising(shown: Shown) -> None:
    """The last iteration's first token, step by step."""
    z, noise, step_noise = shown.heads[-1]
    schedule = shown.loop.schedules[-1]
    coefficients, timesteps = schedule.coefficients, schedule.timesteps
    weights = shown.pipeline.model.head.weights
    guidance, settings = shown.loop.guidance[-1], shown.settings
    x, path = noise, [noise]
    for t, row, noise_t in zip(timesteps, coefficients, step_noise, strict=True):
        output = ops.denoise(x.repeat(2, 1), t.expand(len(z)), z, weights)
        x = ops.ddpm_step(
            x, output, noise_t, row, guidance, settings.temperature, settings.clip_denoised
        )
        path.append(x)
    predicted = shown.loop.orders[0, : shown.loop.masked[-1]].sort().values
    torch.testing.assert_close(x, shown.loop.tokens[0, predicted], rtol=0, atol=1e-4)
    token = int((x.abs() < 0.9).sum(dim=1).argmax())  # one that is not all background
    numbers = torch.stack(path)[:, token]

    steps = len(timesteps)
    seen = [0, steps // 5, 2 * steps // 5, 3 * steps // 5, 4 * steps // 5, steps]
    figure = pyplot.figure(figsize=(10, 3.6), layout="constrained")
    grid = figure.add_gridspec(2, len(seen), height_ratios=(1, 2))
    for place, s in enumerate(seen):
        axis = figure.add_subplot(grid[0, place])
        axis.imshow(numbers[s].view(4, 4).numpy(), **GREY)
        axis.set_title(f"after {s} steps", size=9)
        axis.axis("off")
    axis = figure.add_subplot(grid[1, :])
    axis.plot(numbers.numpy(), linewidth=1)
    axis.set_xlabel("denoising steps done")
    axis.set_ylabel("the token's 16 numbers")
    axis.set_xlim(0, steps)
    save(figure, "sampler-denoising.png")


def schedules(shown: Shown) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3), layout="constrained")
    models = (("fashion-mnist", 49, 6, shown.settings.cfg), ("MAR-B", 256, 64, 2.9))
    for name, seq_len, count, cfg in models:
        lengths = mask_lengths(seq_len, count)
        predicted = -np.diff([*lengths[:-1], 0])
        scales = [float(guidance_scale(cfg, "linear", seq_len, m)) for m in lengths[1:]]
        where = (np.arange(count) + 0.5) / count
        label = f"{name}: L = {seq_len}, K = {count}"
        axes[0].step(where, predicted / seq_len * count, where="mid", label=label)
        axes[1].plot(where, scales, marker=".", label=f"{label}, guidance {cfg:g}")
    axes[0].set_ylabel("tokens predicted,\nrelative to L / K")
    axes[1].set_ylabel("guidance scale")
    for axis in axes:
        axis.set_xlabel("iteration (k + ½) / K")
        axis.legend(fontsize=8)
    save(figure, "sampler-schedules.png")


def save(figure: "pyplot.Figure", name: str) -> None:
    figure.savefig(IMAGES / name, dpi=90, metadata={"Software": None})


def main() -> None:
    shown = Shown()
    iterations(shown)
    denoising(shown)
    schedules(shown)


if __name__ == "__main__":
    main()
