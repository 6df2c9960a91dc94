"""Every op's examples, and more of `attention` and `ddpm_sample`, through every GPU backend, beside
the reference.

    python -m tests.gpu.known_answers --out FILE       a process for each op and backend: one that
                                                       loses its device costs its own rows alone
    python -m tests.gpu.known_answers --here [--op OP] [--backends NAMES] [--small]
                                                       in this process, as sanitizers need it
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from marfast.bench.results import Row
from marfast.ops import self_check
from marfast.ops.op import OPS, Backend, Draw, Example, Op
from tests.gpu.rows import Rows
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
"""By op and name: sizes that its examples don't reach."""


WRONG = 5
"""Exit status where an answer is wrong."""

BACKENDS = ("torch", "cuda", "triton")
"""Of a GPU; those of this version."""


def jobs(names: Sequence[str] = BACKENDS) -> Iterator[tuple[Op[Any], Backend]]:
    """Every op by every such backend that it has."""
    for op in OPS.values():
        for name in names:
            if name in op.backends:
                yield op, op.backends[name]


def outcomes(
    op: Op[Any], backend: Backend, device: torch.device, small: bool = False
) -> Iterator[tuple[str, str]]:
    """Each case's name, and why it is wrong or can't run; empty where it is right. `small`: the
    op's own examples alone."""
    examples = op.examples | ({} if small else MORE.get(op.name, {}))
    for (more, example), dtype in itertools.product(examples.items(), DTYPES):
        case = f"{op.name} {backend.name} {str(dtype)[6:]}{more and ', '}{more}"
        try:
            ok, reason = backend.can_run(op.example_args(dtype, device, example=example))
            said = self_check.check(op, backend, dtype, device, example)
        except RuntimeError as error:  # of a device that is lost every later one, too
            ok, said = True, str(error)
        yield case, said if ok else f"can't run: {reason}"


def row_of(said: str) -> Row:
    if not said:
        return {"right": True}
    return {"right": None, "said": said} if said.startswith("can't run") else {"failed": said}


def print_rows(op: str | None, names: Sequence[str], small: bool) -> int:
    """A line of JSON a case; how many are wrong."""
    wrong = 0
    for one, backend in jobs(names):
        if op in (None, one.name):
            for case, said in outcomes(one, backend, torch.device("cuda"), small):
                row = row_of(said)
                wrong += "failed" in row
                print(json.dumps({"case": case, **row}), flush=True)
    return wrong


def ask(rows: Rows, op: str, backend: str, seconds: float) -> None:
    """A process for one op and backend; its rows are kept as they come."""
    command = (sys.executable, "-m", __spec__.name, "--here", f"--op={op}", f"--backends={backend}")
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        for line in process.stdout:
            row = json.loads(line)
            rows.keep(row.pop("case"), row)
        status = process.wait()
        timer.cancel()
        errors.seek(0)
        if status not in (0, WRONG):
            said = f"exit status {status}: {errors.read()[-400:]}"
            rows.keep(f"{op} {backend}, the rest", {"failed": said})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--op")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=90, help="for an op and backend")
    options = parser.parse_args()
    names = options.backends.split(",")
    if options.here:
        sys.exit(WRONG if print_rows(options.op, names, options.small) else 0)
    rows = Rows(options.out)
    with ThreadPoolExecutor(options.workers) as pool:
        asked = [
            pool.submit(ask, rows, op.name, backend.name, options.seconds)
            for op, backend in jobs(names)
        ]
    for one in asked:
        one.result()
    for case in rows.failures():
        print(f"{case}: {rows.rows[case]['failed']}")
    right = sum(row.get("right") is True for row in rows.rows.values())
    print(f"{right} right, {len(rows.failures())} failed, of {len(rows.rows)} cases")
    sys.exit(bool(rows.failures()) or right == 0)


if __name__ == "__main__":
    main()
