"""Every kernel and configuration asks for few compilations, and compiles within a budget. No GPU is
needed; `python -m tests.triton.tables resources` prints all of them."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.triton.versions import why_not

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import interpreting
from marfast.reference.mar import mask_lengths
from tests.triton.ahead import TARGETS, compiled, empty, recorded, requests
from tests.triton.budget import over_budget
from tests.triton.launches import head_weights, launches, run, step

pytestmark = pytest.mark.skipif(interpreting(), reason="nothing is compiled")

HALF = torch.float16
SM_90 = TARGETS["sm_90"]
STEPS = tiles.SHORT + 1  # as MAR's 100 do, they fill a tall tile


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled is thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


# All of float16 where shared memory is least; elsewhere what is compiled most differently.
@pytest.mark.parametrize(
    ("target", "dtype", "names"),
    [
        (
            "sm_80",
            HALF,
            ("2 rows, w 1024", "40 rows, w 1024", "hd 80", "hd 128", "norms", "loss", "step"),
        ),
        ("sm_90", torch.float32, ("2 rows, w 1024", "hd 80, all")),
        ("sm_90", HALF, ("200 rows, w 1024",)),
        ("sm_100", HALF, ("hd 64, all", "hd 128, all")),
        ("gfx942", HALF, ("hd 80", "one dtype", "loss", "step")),
    ],
)
def test_kernels_compile_within_the_budget(target, dtype, names):
    chosen = [launch for name, launch in launches(dtype).items() if name.startswith(names)]
    assert len(chosen) >= len(names)
    for request in requests(TARGETS[target], *chosen):
        kernel = compiled(request, TARGETS[target])
        assert not (excess := over_budget(kernel, target)), f"{request.name}: {excess}"


def iterations(num_iter: int) -> list[tuple[int, int]]:
    """Of MAR's loop over 256 tokens: how many are known, how many are predicted."""
    masked = [*mask_lengths(256, num_iter)[:-1], 0]
    return [(256 - before, before - after) for before, after in pairwise(masked)]


# Different launches: 3 once, 3 of the modulation; of a step the first product, two of a block (and
# a LayerNorm, where rows are many), the last product, the update; of these, some are alike.
@pytest.mark.parametrize(("batch", "compilations"), [(1, 10), (8, 10 + 11), (64, 11)])
def test_a_whole_schedule_compiles_the_sampler_once_a_tile(batch, compilations):
    """Over all K = 64 iterations, the number of rows changes and what is compiled does not."""
    weights = head_weights(1024, 1, HALF)
    of_tile: dict[tiles.LinearTile, set[str]] = {}
    for tokens in sorted({batch * predicted for _, predicted in iterations(64)}):
        inputs = (empty(tokens, 16), empty(STEPS, tokens, 16), empty(2 * tokens, 768))
        timesteps = torch.zeros(STEPS, dtype=torch.int64)
        with recorded(SM_90) as found:
            run("ddpm_sample", *inputs, weights, empty(STEPS, 8), timesteps, empty(1))
        first = of_tile.setdefault(tiles.linear(2 * tokens, HALF, HALF), set(found))
        assert set(found) == first, f"{tokens} tokens"
    assert len(set().union(*of_tile.values())) == compilations


@pytest.mark.parametrize("causal", [False, True])
def test_a_whole_schedule_compiles_attention_once_a_tile(causal):
    compilations: set[str] = set()
    for known, predicted in iterations(64):
        for length, wanted in ((64 + known, None), (320, predicted)):
            queries = None if wanted is None else torch.zeros(2, wanted, dtype=torch.int64)
            with recorded(SM_90) as found:
                run("attention", empty(2, length, 3, 12, 64, dtype=HALF), queries, causal)
            compilations |= set(found)
    assert len(compilations) == 2  # all positions; few


def test_an_update_is_never_contracted():
    """FMAs in a step's code are those of exp, of a learned range: 9 an element, 2 elements a
    thread."""

    def fmas(request: Any, fusion: bool) -> int:
        options = {**request.options, "enable_fp_fusion": fusion}
        kernel = compiled(request._replace(options=options), SM_90)
        return len(re.findall(r"\bfma\.rn\.f32", kernel.asm["ptx"]))

    steps = requests(SM_90, lambda: step(True, True, torch.float32))
    for request, of_exp in zip(steps, (18, 0, 0), strict=True):  # the others have the table's sigma
        assert request.options["enable_fp_fusion"] is False
        assert fmas(request, False) == of_exp
        assert fmas(request, True) > of_exp


def test_float32_products_are_never_rounded_to_tf32():
    for name in ("2 rows, w 1024", "hd 64, 4"):
        for request in requests(SM_90, launches(torch.float32)[name])[:2]:
            code = compiled(request, SM_90).asm["ptx"]
            assert "fma.rn.f32" in code
            assert "mma" not in code
    halves = requests(SM_90, launches(HALF)["hd 64, 4"])
    assert "mma.sync" in compiled(halves[0], SM_90).asm["ptx"]
