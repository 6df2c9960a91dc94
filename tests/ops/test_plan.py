"""The GPU's plan: arithmetic, tested as such. No time in it was measured."""

import itertools

import pytest
import torch

from marfast.ops.ddpm_sample.plan import bent, gpu_profiles, head_plan
from marfast.ops.head import HeadShape
from tests.ops.heads import HEADS

MARS = {name[-1]: shape for name, shape in HEADS.items()}
ROWS = [*range(1, 200), *range(200, 4097, 41), 4096]
GPUS = ("A100", "H100 PCIe", "H100 SXM", "H200")


def profile_of(gpu):
    """A known one, or a part with less shared memory than any of those."""
    known = gpu_profiles()
    return known[gpu] if gpu in known else known["A100"]._replace(sms=84, shared_bytes=99 << 10)


def shared_bytes(shape, plan, size):
    """csrc/cuda/plan.h's layout: tile, block sums, input, final layer, slots of weights."""
    block, up = (256 if size == 4 else 128), lambda n, to: -(-n // to) * to
    row, ends = shape.width * size + 16, -(-2 * shape.channels // plan.column_groups)
    sums = -(-shape.width // block) * plan.row_tile * max(plan.columns, ends) * 4
    slots = min(2 * shape.depth, plan.stationary + 1) if plan.staged else 0
    inputs = plan.row_tile * shape.channels * 4
    return up(sums, 128) + up(inputs, 128) + row * (plan.row_tile + ends + slots * plan.columns)


@pytest.mark.parametrize(("name", "gpu"), [*itertools.product(MARS, (*GPUS, "sm_86"))])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_plan_is_sound(name, gpu, dtype):
    shape, profile = MARS[name], profile_of(gpu)
    before = 0.0
    for rows in ROWS:
        plan = head_plan(rows, shape, profile, dtype)
        assert plan.floor <= plan.time, rows
        assert before <= plan.time, rows
        before = plan.time
        assert 1 <= plan.chunk <= 100
        assert plan.chunk == 1 or plan.modulation_bytes <= 1 << 30
        if plan.regime == "tall":
            continue
        assert fits(plan, rows, shape, profile, dtype), plan
        assert plan.utilisation >= 0.8, rows


def fits(plan, rows, shape, profile, dtype):
    """Whether a persistent plan keeps what the kernel takes for granted (csrc/cuda/plan.h)."""
    least = 1 if dtype == torch.float32 else 0
    return (
        1 <= plan.row_groups <= rows
        and 1 <= plan.column_groups <= shape.width
        and plan.row_groups * plan.column_groups <= profile.sms
        and plan.columns == -(-shape.width // plan.column_groups)
        and plan.row_tile in (8, 16, 32, 64, 128)
        and 0 <= plan.stationary <= 2 * shape.depth
        and (plan.staged or plan.stationary == 0)
        and plan.staged >= least
        and shared_bytes(shape, plan, dtype.itemsize) == plan.shared_bytes
        and plan.shared_bytes <= profile.shared_bytes
        and plan.chunk >= 1
    )


@pytest.mark.parametrize("gpu", [*GPUS, "sm_86"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_persistent_plan_fits_its_device(gpu, dtype):
    """Of any width and depth that the kernel takes, and rows past what it is chosen for; also on a
    part with few and small multiprocessors."""
    profile, persistent = profile_of(gpu), 0
    small = profile._replace(sms=7, shared_bytes=64 << 10)
    sizes = itertools.product(range(32, 2049, 96), (1, 2, 7, 32), (1, 16, 65))
    for width, depth, channels in sizes:
        shape = HeadShape(channels, 64, width, depth, 256, width)
        rows = 1 + 37 * width * depth % 513
        for device, variant in itertools.product((profile, small), ("persistent", "patient")):
            plan = head_plan(rows, shape, bent(device, variant), dtype, 10, 1 << 20, True)
            assert plan.regime == "tall" or fits(plan, rows, shape, device, dtype), (shape, plan)
            persistent += plan.regime == "persistent"
    assert persistent > 300


@pytest.mark.parametrize(("name", "gpu"), [*itertools.product(MARS, GPUS)])
def test_bent_plans_are_persistent_and_have_fewer_barriers_where_those_are_slow(name, gpu):
    profile = profile_of(gpu)
    assert bent(profile, "") == bent(profile, "persistent") == profile
    fewer = False
    for rows in (2, 8, 32, 128, 512):
        usual, patient = (
            head_plan(rows, MARS[name], bent(profile, variant), persistent=True)
            for variant in ("persistent", "patient")
        )
        assert {usual.regime, patient.regime} == {"persistent"}
        assert patient.barriers <= usual.barriers
        fewer |= patient.barriers < usual.barriers
    assert fewer


@pytest.mark.parametrize(("name", "gpu"), [*itertools.product(MARS, GPUS)])
def test_few_rows_are_persistent_on_at_least_nine_tenths_of_the_sms(name, gpu):
    for rows in (1, 2, 4, 8):
        plan = head_plan(rows, MARS[name], gpu_profiles()[gpu], persistent=True)
        assert plan.regime == "persistent"
        assert plan.utilisation > 0.9
    b = head_plan(2, MARS["B"], gpu_profiles()["H200"], persistent=True)
    assert (b.stationary, b.columns, b.column_groups) == (12, 8, 132)


@pytest.mark.parametrize(("name", "gpu"), [*itertools.product(MARS, (*GPUS, "sm_86"))])
def test_float32_persists_for_few_rows_and_staged_weights_alone(name, gpu):
    for rows in (*range(17, 200, 9), 512, 4096):
        assert head_plan(rows, MARS[name], profile_of(gpu), torch.float32).regime == "tall"
    for rows in (1, 2, 8, 64):
        forced = head_plan(rows, MARS[name], profile_of(gpu), torch.float32, persistent=True)
        assert forced.staged or forced.stationary == 2 * MARS[name].depth or forced.regime == "tall"
    assert head_plan(2, MARS["B"], gpu_profiles()["H200"], torch.float32).regime == "persistent"


def test_where_no_persistent_plan_fits():
    tiny = gpu_profiles()["A100"]._replace(shared_bytes=8 << 10)
    assert head_plan(2, MARS["B"], tiny, persistent=True).regime == "tall"


def test_narrow_and_wide_heads_have_a_plan():
    for width, depth, dtype in itertools.product(
        range(32, 2049, 224), (1, 3, 16), (torch.float16, torch.float32)
    ):
        plan = head_plan(
            4, HeadShape(16, 64, width, depth, 256, width), gpu_profiles()["A100"], dtype
        )
        assert plan.time > 0


def test_a_smaller_budget_means_fewer_steps_at_a_time():
    gpu = gpu_profiles()["H200"]
    step = 8 * 20 * 1024 * 4
    assert head_plan(8, MARS["B"], gpu, modulation_budget=7 * step).chunk == 7
    assert head_plan(8, MARS["B"], gpu, modulation_budget=1).chunk == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rows": 0}, ValueError, "rows is 0"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"shape": HeadShape(16, 8, 40, 2, 256, 40)}, ValueError, "width is 40"),
        ({"dtype": torch.float64}, TypeError, "dtype is"),
    ],
)
def test_bad_input(change, error, words):
    given = {"rows": 2, "shape": MARS["B"], "gpu": gpu_profiles()["H200"]} | change
    with pytest.raises(error, match=words):
        head_plan(**given)
