"""Every op's example, and more of `attention` and `ddpm_sample`, through every GPU backend, beside
the reference: what compute-sanitizer runs.

python -m tests.gpu.known_answers
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from marfast.ops import self_check
from marfast.ops.op import OPS, Draw, Example
from tests.ops.heads import sample_inputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _attention(
    head_dim: int, wanted: int | None, causal: bool, misaligned: bool = False
) -> Example:
    def example(draw: Draw) -> dict[str, Any]:
        sizes = (2, 130, 3, 2, head_dim)
        drawn = draw.normal(math.prod(sizes) + 1).to(draw.dtype)
        qkv = drawn[1:] if misaligned else drawn[:-1]
        queries = None if wanted is None else draw.integers(sizes[1], 2, wanted)
        return {"qkv": qkv.view(sizes), "queries": queries, "causal": causal}

    return example


def _sample(tokens: int, width: int, depth: int) -> Example:
    def example(draw: Draw) -> dict[str, Any]:
        args = sample_inputs(tokens, width=width, depth=depth, steps=2, dtype=draw.dtype)
        bound = OPS["ddpm_sample"].bind(*tree_map_only(Tensor, lambda t: t.to(draw.device), args))
        return bound._asdict()

    return example


MORE: dict[str, dict[str, Example]] = {
    "attention": {
        "heads of 64": _attention(64, None, False),
        "heads of 80, causal": _attention(80, None, True),
        "heads of 128, some queries, causal": _attention(128, 5, True),
        "heads of 24, misaligned": _attention(24, None, False, misaligned=True),
    },
    "ddpm_sample": {
        "weights that stay": _sample(1, 1024, 6),
        "weights that stream": _sample(20, 1536, 4),
        "launch by launch": _sample(3, 40, 2),
    },
}
"""By op and name: what its example doesn't reach."""


def outcomes(device: torch.device) -> Iterator[tuple[str, str]]:
    """Each case's name, and why it is wrong or can't run; empty where it is right."""
    for op in OPS.values():
        for name in self_check.BACKENDS:
            backend = op.backends.get(name)
            examples = {"": None, **MORE.get(op.name, {})} if backend else {}
            for (more, example), dtype in itertools.product(examples.items(), DTYPES):
                assert backend is not None
                a = op.example_args(dtype, device, example=example)
                ok, reason = backend.can_run(a)
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
