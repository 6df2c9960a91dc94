"""Prints what docs/triton.md sums up:

    TRITON_INTERPRET=1 python -m tests.triton.tables errors       ten minutes
    python -m tests.triton.tables resources                       a few minutes

`errors`: each op under the interpreter and PyTorch, both against float64, over 8 seeds.
`resources`: every kernel and configuration compiled for every target; ends with 1 where one is over
its budget.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch

from marfast import ops
from marfast.ops.op import OPS
from marfast.verifying.compare import to_double


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


def _errors(found: list[torch.Tensor], exact: list[torch.Tensor]) -> tuple[float, float]:
    """The largest and the RMS error, relative to the RMS of what is exact."""
    apart = torch.cat([(f.double() - e).flatten() for f, e in zip(found, exact, strict=True)])
    scale = torch.cat([e.flatten() for e in exact]).square().mean().sqrt()
    return float(apart.abs().max() / scale), float(apart.square().mean().sqrt() / scale)


def errors() -> None:
    from . import interpreter
    from .cases import ACCURACY, DTYPES, WIDE

    interpreter.repair()
    rows = []
    for case in (*ACCURACY, *WIDE):
        for dtype in DTYPES:
            op = OPS[case.op]
            cases = [case.args(dtype, seed) for seed in range(8)]
            exact = [op.plain(*to_double(args)) for args in cases]
            with ops.backend("triton"):
                ours = _errors([op(*args) for args in cases], exact)
            theirs = _errors([op.plain(*args) for args in cases], exact)
            figures = [f"{x:.2g}" for pair in zip(ours, theirs, strict=True) for x in pair]
            rows.append([f"`{case.op}`", case.sizes, str(dtype)[6:], *figures])
    head = ("op", "sizes", "dtype", "largest", "PyTorch's", "RMS", "PyTorch's")
    table(head, rows)


def _configuration(request: Any) -> str:
    """A kernel's tile, from the constants that it is compiled with."""
    names = request.kernel.arg_names
    constants = {names[place[0]]: value for place, value in request.constants.items()}
    tile = [constants[name] for name in names if name.startswith("BLOCK")]
    label = " x ".join(map(str, tile))
    return f"{label}, hd {constants['HEAD_DIM']}" if "HEAD_DIM" in constants else label


def resources() -> int:
    """How many are over their budget."""
    from .ahead import TARGETS, compiled, requests
    from .ahead import resources as of
    from .budget import over_budget
    from .launches import launches

    found: dict[tuple[str, str, str], dict[str, list[Any]]] = {}
    excess = 0
    kinds = {torch.float32: "float32", torch.float16: "half", torch.bfloat16: "half"}
    for target, gpu in TARGETS.items():
        for dtype, kind in kinds.items():
            for request in requests(gpu, *launches(dtype).values()):
                kernel = compiled(request, gpu)
                key = (request.name, _configuration(request), kind)
                found.setdefault(key, {}).setdefault(target, []).append(of(kernel, gpu))
                if why := over_budget(kernel, target):
                    print(f"{target}, {key}: {why}", file=sys.stderr)
                    excess += 1
    rows = []
    for (name, tile, kind), targets in sorted(found.items()):
        figures = []
        for target in TARGETS:
            most = [max(column) for column in zip(*targets[target], strict=True)]
            figures.append(f"{most[0]} / {most[1]} / {most[2] / 1024:.0f}")
        count = str(sum(map(len, targets.values())))
        rows.append([f"`{name}`", tile, kind, count, *figures])
    table(("kernel", "tile", "dtype", "compiled", *TARGETS), rows)
    return excess


if __name__ == "__main__":
    if sys.argv[1:] == ["errors"]:
        errors()
    elif sys.argv[1:] == ["resources"]:
        sys.exit(1 if resources() else 0)
    else:
        sys.exit(__doc__)
