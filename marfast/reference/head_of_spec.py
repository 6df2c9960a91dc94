"""A head of any spec as a module: parameters by name, and the function that they are of."""

import torch
from torch import Tensor, nn

from marfast.reference.denoise import denoise
from marfast.reference.head_spec import HeadSpec
from marfast.reference.head_weights import layout, sizes_of


class Head(nn.Module):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, 2C]`, or [R, C] of a spec without variance; t is
    [R, times] of one with several.

    MLPs are `hidden` wide (None: as the head). Parameters have the names of `head_weights.layout`,
    and begin as those of MAR's head do: modulations and the last layer are 0.
    """

    def __init__(
        self,
        spec: HeadSpec,
        channels: int,
        condition: int,
        width: int,
        depth: int,
        hidden: int | None = None,
        frequencies: int = 256,
    ) -> None:
        super().__init__()
        self.spec = spec
        hidden = width if hidden is None else hidden
        sizes = {"C": channels, "D": condition, "w": width, "h": hidden, "F": frequencies}
        for name, letters in layout(spec, depth):
            owner: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(last, nn.Parameter(torch.empty(sizes_of(letters, sizes))))
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:  # a norm's weight, or a bias
                nn.init.constant_(parameter, float(name.endswith("weight")))
            elif "adaLN_modulation" in name or name == "final_layer.linear.weight":
                nn.init.zeros_(parameter)
            elif name.startswith("time_embed"):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return denoise(x, t, c, [*self.parameters()], self.spec)
