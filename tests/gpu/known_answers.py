"""Every op's example through every GPU backend, beside the reference: what compute-sanitizer runs.

python -m tests.gpu.known_answers
"""

import sys
from collections.abc import Iterator

import torch

from marfast.ops import registry, self_check

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def outcomes(device: torch.device) -> Iterator[tuple[str, str]]:
    """Each case's name, and why it is wrong or can't run; empty where it is right."""
    for op in registry.OPS.values():
        for name in self_check.BACKENDS:
            backend = op.backends.get(name)
            for dtype in DTYPES if backend else ():
                assert backend is not None
                args = op.fill(op.example(dtype, device, torch.Generator().manual_seed(0)))
                ok, reason = backend.can_run(*args)
                case = f"{op.name} {name} {str(dtype)[6:]}"
                if not ok:
                    yield case, f"can't run: {reason}"
                    continue
                yield case, self_check.check(op, backend, dtype, device)


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
