"""How far a generation is: told to whoever asks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

Progress = Callable[[int, int], None]
"""Called with (done, of) iterations."""


@dataclass(frozen=True)
class Step:
    """An iteration that is done, as a generation's `callback` hears of it."""

    done: int
    of: int
    """Iterations of these images."""
    images: range
    """Which of the batch they are."""
    tokens: Tensor
    """[images, L, C] so far; zero where they are still to be made."""
    _decode: Callable[[Tensor], Tensor] = field(repr=False)

    def preview(self) -> Tensor:
        """What `generate` would return of these tokens, [images, C, H, W]."""
        return self._decode(self.tokens)


@contextmanager
def reporting(progress: "bool | Progress | None", total: int) -> Iterator[Progress]:
    """What to call after each iteration: True is tqdm's bar, None and False are nothing.
    ImportError with what to install where there is no tqdm."""
    if not progress:
        yield lambda done, of: None
    elif callable(progress):
        yield progress
    else:
        with bar(total) as report:
            yield report


@contextmanager
def bar(total: int) -> Iterator[Progress]:
    """tqdm's, in a notebook, too."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("a progress bar needs tqdm: pip install tqdm") from None
    with tqdm(total=total) as shown:
        yield lambda done, of: shown.update()
