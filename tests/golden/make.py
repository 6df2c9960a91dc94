"""Write the golden values of tests/reference, all of them results of a checkout of LTH14/mar.

    python tests/golden/make.py --original PATH

Every case runs at three CPU capabilities of torch; one whose results differ by more than half of
the tests' tolerance is ill-conditioned, and nothing is written.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from marfast.verifying import original
from marfast.verifying.case import Result
from tests.golden import recipes, values


def run(checkout: Path, capability: str | None) -> dict[str, Result]:
    os.environ.pop("ATEN_CPU_CAPABILITY", None)
    if capability:
        os.environ["ATEN_CPU_CAPABILITY"] = capability
    cases = recipes.all_cases()
    source = "tests.golden.recipes"
    with original.RunningOriginal(checkout, source, range(len(cases)), threads=1) as running:
        return {values.key(case): running.result(i) for i, case in enumerate(cases)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", required=True, metavar="PATH", help="checkout of LTH14/mar")
    try:
        checkout = original.require_checkout(parser.parse_args().original)
        original.require_packages()
    except original.OriginalError as error:
        parser.error(str(error))
    commit = original.commit(checkout)
    if commit is None:
        parser.error(f"{checkout}: its code is not that of commit {original.COMMIT}")

    results = run(checkout, None)
    for capability in ("avx2", "default"):
        for name, other in run(checkout, capability).items():
            exact, floats = values.split(results[name])
            if "error" in other or values.split(other)[0] != exact:
                parser.error(f"{name}: not exact under {capability}: {other.get('error', '')}")
            for item, value in floats.items():
                if (apart := values.excess(other[item], values.digest(value))) > 0.5:
                    parser.error(f"{name}: {item} is {apart:.2f} tolerances off under {capability}")
    made_with = {
        "original": f"LTH14/mar {commit}",
        "torch": str(torch.__version__),
        "timm": original.TIMM,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    values.save(results, made_with)
    print(f"{len(results)} cases in {values.FOLDER}")


if __name__ == "__main__":
    main()
