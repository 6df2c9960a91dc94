"""Which section is made by whom, and the pages that have them."""

import re
from collections.abc import Callable
from functools import partial

from benchmarks.studies import ROOT
from benchmarks.studies.tables import quality, speed, training, work

MARKED = re.compile(r"(<!-- tables: (\w+) -->\n).*?(<!-- tables: end -->\n)", re.DOTALL)
SECTIONS: dict[str, Callable[[], str]] = {
    "headline": speed.headline,
    "speed": speed.speed,
    "without_kernels": speed.without_kernels,
    "phases": speed.phases,
    "batch": speed.batch,
    "models": speed.models,
    "head": partial(work.scaling, loop=False),
    "loop": partial(work.scaling, loop=True),
    "roofline": work.roofline,
    "parts": work.parts,
    "device_work": work.device_work,
    "quality": quality.quality,
    "editing": quality.editing,
    "samplers": quality.samplers,
    "curve": quality.curve,
    "training": training.training,
    "vowels": training.vowels,
    "kills": training.kills,
}
NAMES = (
    *("performance", "quality", "editing", "samplers", "training", "models"),
    *("evaluation", "gpu_without_a_gpu"),
)
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES))


def rewritten(page: str) -> str:
    """The page with what stands between each pair of markers made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{SECTIONS[found[2]]()}\n{found[3]}", page)
