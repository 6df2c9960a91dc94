"""One launch of ddpm_sample's persistent kernel, for Nsight Compute: MAR-B, bfloat16, 10 steps.

ncu --set=full --kernel-name=regex:ddpm_sample python -m tests.gpu.one_launch [--rows 2]
"""

import argparse

import torch

from marfast.bench import heads
from marfast.ops.op import OPS
from tests.gpu.regimes import in_regime


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2)
    rows = parser.parse_args().rows
    work = heads.head_workload(heads.make_head("mar_base", "cuda"), rows, 10)
    op = OPS["ddpm_sample"]
    a = op.bind(*work.in_dtype(torch.bfloat16).arguments)
    out = in_regime("persistent", lambda: op.backends["cuda"].run(a))()
    torch.cuda.synchronize()
    print(f"{rows} rows, finite: {bool(out.isfinite().all())}")


if __name__ == "__main__":
    main()
