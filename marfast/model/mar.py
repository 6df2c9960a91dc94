"""The thin model: a MAR module's own parameters, run through the package's ops.

It has no parameters. It works on index tensors (which tokens are known, which to predict) where the
reference works on masks, so that nothing waits for data; the values are the same.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from marfast import profiling
from marfast.errors import ArgumentError
from marfast.model.block import BoundBlock, FastBlock, through
from marfast.model.head import BoundHead, FastHead
from marfast.model.own import anyone_watches, is_touched, named_parameters_of, parts_of
from marfast.model.packing import autocast
from marfast.model.schedule import DDPM, Sampling, Schedule, schedule_of
from marfast.ops.runtime import DTYPES, check_memory
from marfast.reference.diffusion import HeadOptions


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raise ValueError unless products can be computed in it."""
    if dtype not in (None, *DTYPES):
        names = ", ".join(map(str, DTYPES))
        raise ArgumentError("dtype", repr(dtype), f"allowed are None, {names}")


def _bind(kept: list[FastBlock], blocks: Any) -> list[BoundBlock]:
    while len(kept) < len(blocks):
        kept.append(FastBlock())
    return [fast.bind(block) for fast, block in zip(kept, blocks, strict=False)]


class Kept:
    """What is kept of a MAR from one generation to the next. It refers to no module."""

    def __init__(self) -> None:
        self.schedules: dict[Any, tuple[Any, Schedule]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Forget all but the schedules."""
        self.head = FastHead()
        self.encoder: list[FastBlock] = []
        self.decoder: list[FastBlock] = []
        self.graphs: Any = None  # what generation has captured


class FastMAR:
    """The ops bound to a MAR `module`: the reference's, or any with the same parameter names.

    dtype: what products are computed in, as under torch.autocast (float32: under none); None takes
        what is in force, autocast's or the weights' own.

    Each generation has one of its own (`renewed`), as threads may share what they were given.
    """

    head: BoundHead

    def __init__(self, module: Any, dtype: torch.dtype | None = None, kept: Kept | None = None):
        self.module = module
        self.dtype = dtype
        self.kept = kept or Kept()
        self._encoder: list[BoundBlock] = []
        self._decoder: list[BoundBlock] = []

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.mask_token.device
        return device

    @property
    def weights(self) -> list[Tensor]:
        """What head and blocks read in the ops, as `update` found or cast it."""
        blocks = (*self._encoder, *self._decoder)
        return [*self.head.weights, *(weight for block in blocks for weight in block.weights)]

    @property
    def graphs(self) -> Any:
        """What generation has captured of this model."""
        return self.kept.graphs

    @graphs.setter
    def graphs(self, graphs: Any) -> None:
        self.kept.graphs = graphs

    def autocast(self) -> AbstractContextManager[None]:
        """What this model's dtype asks for."""
        return autocast(self.device, self.dtype)

    def renewed(self) -> "FastMAR":
        """Another of the same module, which has its parts and weights as they are now."""
        other = FastMAR(self.module, self.dtype, self.kept)
        other.update()
        return other

    def update(self) -> None:
        """Take the module's parts and weights as they are now, once before each generation."""
        module, kept = self.module, self.kept
        check_memory(**named_parameters_of(module))
        with self.autocast():
            self.head = kept.head.bind(module.diffloss.net)
            self._encoder = _bind(kept.encoder, module.encoder_blocks)
            self._decoder = _bind(kept.decoder, module.decoder_blocks)

    def schedule(self, steps: int | str | None = None, sampling: Sampling = DDPM) -> Schedule:
        """The sampler's, on the model's device.

        steps: a count or a respacing; None takes the process that the module was built with.
        """
        own = self.module.diffloss.gen_diffusion
        key = (str(steps), sampling, self.device)
        process, schedule = self.kept.schedules.get(key, (None, None))
        if schedule is None or (steps is None and process is not own):
            schedule = schedule_of(own, steps, sampling, self.device)
            self.kept.schedules[key] = own, schedule
        return schedule

    def refresh(self) -> None:
        """Pack all weights anew at the next use, and drop what was captured: for weights that were
        written where no version counts it."""
        self.kept.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FastMAR.__init__(self, **state)

    def class_embedding(self, labels: Tensor) -> Tensor:
        """labels [B], −1 for no class -> [B, D]."""
        no_class = labels == -1
        known: Tensor = self.module.class_emb(labels.masked_fill(no_class, 0))
        return torch.where(no_class[:, None], self.module.fake_latent.to(known.dtype), known)

    @property
    def is_hooked(self) -> bool:
        """Whether somebody has hooked into the module, or into all: that has to run each time."""
        return anyone_watches() or any(map(is_touched, parts_of(self.module)))

    @property
    def shares_rows(self) -> bool:
        """Whether a row's result depends on no other row and nobody watches how many there are, so
        that rows which are the same may be computed once."""
        m = self.module
        around = (m.z_proj, m.z_proj_ln, m.encoder_norm, m.decoder_embed, m.decoder_norm)
        return (
            self.device.type == "cpu"
            and all(block.by_ops for block in (*self._encoder, *self._decoder))
            and not any(map(is_touched, around))
        )

    def condition(
        self,
        tokens: Tensor,
        known: Tensor,
        predict: Tensor,
        class_embedding: Tensor,
        source: Tensor | None = None,
    ) -> Tensor:
        """Condition vectors z of the tokens to predict: encoder, then decoder.

        tokens [U, L, C]; known [U, k] and predict [R, n] positions, each row ascending;
        class_embedding [U, D] -> z [R·n, D]. source [R]: which of the U rows each of the R is
        predicted from; None, where U = R, each from its own: then only the positions to predict
        leave the last block.
        """
        with self.autocast():
            with profiling.range("encoder", len(tokens)):
                x, visible = self._encode(tokens, known, class_embedding)
            with profiling.range("decoder", len(tokens)):
                return self._decode(x, visible, predict, source)

    def _encode(
        self, tokens: Tensor, known: Tensor, class_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the encoder makes of buffer and known tokens, and the positions that those have."""
        m = self.module
        first = torch.arange(m.buffer_size, device=known.device).expand(known.shape[0], -1)
        visible = torch.cat([first, known + m.buffer_size], dim=1)
        rows = torch.arange(known.shape[0], device=known.device)[:, None]

        buffer = class_embedding[:, None].expand(-1, m.buffer_size, -1)
        tokens = tokens.to(m.z_proj.weight.dtype)
        x = torch.cat([buffer, m.z_proj(tokens)], dim=1) + m.encoder_pos_embed_learned
        x = m.z_proj_ln(x)[rows, visible]
        if x.numel():  # else nothing is known, and no buffer is there
            x = through(self._encoder, x)
        return x, visible

    def _decode(self, x: Tensor, visible: Tensor, predict: Tensor, source: Tensor | None) -> Tensor:
        m = self.module
        rows = torch.arange(len(x), device=x.device)[:, None]
        x = m.decoder_embed(m.encoder_norm(x))
        positions = m.decoder_pos_embed_learned.shape[1]
        padded = m.mask_token.repeat(x.shape[0], positions, 1).to(x.dtype)
        padded[rows, visible] = x
        x = padded + m.decoder_pos_embed_learned
        wanted = predict + m.buffer_size
        if source is None:
            x = through(self._decoder, x, wanted)
        else:
            x = through(self._decoder, x)[source[:, None], wanted]
        x = m.decoder_norm(x)
        z: Tensor = (x + m.diffusion_pos_embed_learned[0, predict]).flatten(0, 1)
        return z

    def sample_head(
        self,
        z: Tensor,
        noise: Tensor,
        step_noises: Iterable[Tensor],
        schedule: Schedule,
        guidance: Tensor,
        options: HeadOptions,
    ) -> Tensor:
        """The head's S denoising steps: z [R, D], noise [N, C], step_noises each [s, N, C] of
        consecutive steps, guidance [1] -> tokens [N, C]. R = 2N if guided, conditional rows first.
        """
        with self.autocast(), profiling.range("head", len(z)):
            return self.head.sample(noise, step_noises, z, schedule, guidance, options)
