"""The model that is trained, and its loss of a part of a batch."""

import torch
from torch import Tensor, nn

from marfast.checkpoints import Architecture
from marfast.model.loss import loss_of
from marfast.model.restricted import restricted
from marfast.reference import MAR
from marfast.training.settings import TrainSettings


class Trained(MAR):
    """The reference's module, whose loss costs what the masked tokens do: `ops.diffusion_loss`."""

    def forward_loss(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Of z [B, L, D], target [B, L, C] and mask [B, L] -> scalar."""
        tokens, conditions = target.flatten(0, 1), z.flatten(0, 1)
        return loss_of(self.diffloss, tokens, conditions, mask.flatten(), self.diffusion_batch_mul)


def build(architecture: Architecture, settings: TrainSettings) -> MAR:
    """A module whose weights are drawn from the global generators, ready to train."""
    module = architecture.module(
        Trained,
        attn_dropout=settings.dropout,
        proj_dropout=settings.dropout,
        label_drop_prob=settings.label_drop,
        mask_ratio_min=settings.mask_min,
        diffusion_batch_mul=settings.mul,
        grad_checkpointing=settings.grad_checkpointing,
    )
    return module.train()


class Objective(nn.Module):
    """The training loss of a MAR `module`, in the settings' dtype. What DDP wraps."""

    def __init__(self, module: MAR, settings: TrainSettings):
        super().__init__()
        self.module = module
        self.in_bfloat16 = settings.dtype == "bfloat16"

    def forward(self, x: Tensor, labels: Tensor, lengths: list[int] | None = None) -> Tensor:
        """Of x [B, c, h, w] with labels [B] -> scalar. Of sequences [B, C, 1, L], the first
        lengths[i] tokens of item i are there; what lies behind them has no influence."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            if lengths is None:
                return self.module(x, labels)  # type: ignore[no-any-return]
            return self._of_sequences(x, labels, lengths)

    def _of_sequences(self, x: Tensor, labels: Tensor, lengths: list[int]) -> Tensor:
        """Sequences of one length together, as of a model of that length; a token counts the same
        in each of them."""
        total = x.new_zeros((), dtype=torch.float32)
        for length in sorted({*lengths}):
            rows = [i for i, own in enumerate(lengths) if own == length]
            loss = restricted(self.module, length)(x[rows][..., :length], labels[rows])
            total = total + loss * (length * len(rows) / sum(lengths))
        return total
