"""What a batch asks for: the arguments that generations and edits share, checked."""

from typing import Any, NamedTuple

from torch import Tensor

from marfast.checkpoints import Settings
from marfast.errors import check_whole
from marfast.generation.arguments import Seed, check_seeds, labels_of
from marfast.generation.loaded import Loaded
from marfast.generation.provenance import Maker, Making


class Batch(NamedTuple):
    """A run of a model for B images, of which it computes `part` at a time."""

    labels: Tensor  # [B], −1 for no class, on the model's device
    seed: int | list[int] | None
    settings: Settings
    part: int
    making: Making

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        command: Maker,
        labels: Tensor,
        seed: Seed,
        part: int | None,
        settings: dict[str, Any],
    ) -> "Batch":
        """labels [B], as `check_labels` has them; of settings, those that are None are the model's.
        ArgumentError names what is wrong."""
        seeds = check_seeds(seed, len(labels))
        chosen = loaded.settings.replace(loaded.model.module.seq_len, **settings)
        size = loaded.largest_part if part is None else check_whole("part", part, 1)
        making = Making(loaded, command, labels_of(labels), seeds, chosen, size)
        return cls(labels.to(loaded.model.device), seeds, chosen, size, making)

    def wanted(self, first: int, count: int | None) -> range:
        """Images `first` and following, `count` of them or all; ArgumentError unless they are
        there."""
        batch = len(self.labels)
        allowed = f"allowed are 0 to {batch}, the number of labels"
        first = check_whole("first", first, 0, batch, allowed)
        if count is None:
            return range(first, batch)
        allowed = f"allowed are 0 to {batch - first}, the number of labels from {first} on"
        return range(first, first + check_whole("count", count, 0, batch - first, allowed))
