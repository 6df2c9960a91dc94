"""The scripts behind the published figures: each is run as `python -m benchmarks.studies.NAME`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
BUILD = ROOT / "build"


def instruction_set() -> str:
    """The CPU kernels' here, by which results are named; ends the program where there are none."""
    from marfast.ops.runtime import cpu

    ok, reason = cpu.is_built()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")
    return cpu.extension().isa()
