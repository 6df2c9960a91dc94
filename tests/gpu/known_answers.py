"""Every op's example, and more of `attention`'s variants, through every GPU backend, beside the
reference: what compute-sanitizer runs.

python -m tests.gpu.known_answers
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch

from marfast.ops import registry, self_check

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _attention(
    head_dim: int, wanted: int | None, causal: bool, misaligned: bool = False
) -> registry.Example:
    def example(
        dtype: torch.dtype, device: torch.device, generator: torch.Generator
    ) -> tuple[Any, ...]:
        sizes = (2, 130, 3, 2, head_dim)
        drawn = torch.randn(math.prod(sizes) + 1, generator=generator).to(device, dtype)
        qkv = drawn[1:] if misaligned else drawn[:-1]
        queries = None
        if wanted is not None:
            queries = torch.randint(0, sizes[1], (2, wanted), generator=generator).to(device)
        return qkv.view(sizes), queries, causal

    return example


MORE: dict[str, dict[str, registry.Example]] = {
    "attention": {
        "heads of 64": _attention(64, None, False),
        "heads of 80, causal": _attention(80, None, True),
        "heads of 128, some queries, causal": _attention(128, 5, True),
        "heads of 24, misaligned": _attention(24, None, False, misaligned=True),
    }
}
"""By op and name: what its example doesn't reach."""


def outcomes(device: torch.device) -> Iterator[tuple[str, str]]:
    """Each case's name, and why it is wrong or can't run; empty where it is right."""
    for op in registry.OPS.values():
        for name in self_check.BACKENDS:
            backend = op.backends.get(name)
            examples = {"": op.example, **MORE.get(op.name, {})} if backend else {}
            for (more, example), dtype in itertools.product(examples.items(), DTYPES):
                assert backend is not None
                args = op.fill(example(dtype, device, torch.Generator().manual_seed(0)))
                ok, reason = backend.can_run(*args)
                case = f"{op.name} {name} {str(dtype)[6:]}{more and ', '}{more}"
                if not ok:
                    yield case, f"can't run: {reason}"
                    continue
                yield case, self_check.check(op, backend, dtype, device, example)


def main() -> None:
    wrong = ran = 0
    for case, reason in outcomes(torch.device("cuda")):
        ran += not reason.startswith("can't run")
        wrong += bool(reason) and not reason.startswith("can't run")
        print(f"{case}: {reason or 'right'}", flush=True)
    torch.cuda.synchronize()
    sys.exit(wrong > 0 or ran == 0)


if __name__ == "__main__":
    main()
