"""The persistent ddpm_sample in the emulator: float32 to the bit of the CPU's portable build,
halves beside PyTorch's own error, every synchronisation dropped in turn."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from marfast import ops, reference
from marfast.ops import native
from marfast.ops.head import HeadShape, time_embedding
from tests.emulation import build
from tests.ops.heads import sample_inputs

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    source = Path(build.HERE) / "run_ddpm_sample.cpp"
    return build.link_program(source, tmp_path_factory.mktemp("emulation") / "ddpm_sample")


def emulate(program, folder, args, plan, schedule=0, chunk=2, faults=False):
    """plan: P, Q, row_tile, columns, stationary, staged, once -> (the sample, standard error)."""
    noise, step_noise, cond, weights, coefficients, timesteps, guidance, temperature, clip = args[
        :9
    ]
    shape, dtype = HeadShape.of(weights), weights[0].dtype
    time = time_embedding(tuple(timesteps.tolist()), shape.frequencies)
    tensors = {
        **{
            "noise": noise,
            "step_noise": step_noise,
            "cond": cond.to(dtype),
            "time": time.to(dtype),
        },
        **{"schedule": coefficients, "guidance": guidance},
        **{str(i): weight for i, weight in enumerate(weights)},
    }
    for name, tensor in tensors.items():
        (folder / name).write_bytes(bytes(tensor.contiguous().view(torch.uint8).numpy().data))
    sizes = (*shape, len(noise), len(timesteps), chunk, int(len(cond) > len(noise)), int(clip))
    words = (program, folder, NAMES[dtype], schedule, *sizes, temperature, *map(int, plan))
    command = [str(word) for word in (*words, *(["faults"] if faults else []))]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return torch.frombuffer(bytearray(done.stdout), dtype=torch.float32).view_as(noise), done.stderr


# P, Q, row_tile, columns, stationary, staged, once
PLANS = {
    "all weights stay": (1, 3, 8, 11, 4, True, False),
    "some stream": (2, 2, 8, 16, 1, True, False),
    "normalised once": (2, 2, 8, 16, 0, True, True),
    "weights in L2, tiles of columns": (3, 1, 8, 20, 0, False, True),
    "one block": (1, 1, 8, 32, 4, True, False),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_float32_is_the_cpus_portable_build_to_the_bit(program, tmp_path, plan):
    args = sample_inputs(5, width=32, condition=19, channels=5, steps=3, frequencies=18)
    with native.cpu_isa("portable"), ops.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    for schedule in range(3):
        got, _ = emulate(program, tmp_path, args, plan, schedule)
        assert torch.equal(got, expected)


def test_blocks_of_k_and_no_guidance(program, tmp_path):
    args = sample_inputs(2, guided=False, width=288, condition=300, depth=1, steps=2)
    with native.cpu_isa("portable"), ops.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    got, _ = emulate(program, tmp_path, args, (1, 2, 8, 144, 0, True, False))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_whole_sample_in_halves_is_as_exact_as_pytorchs(program, tmp_path, dtype):
    args = sample_inputs(3, width=32, condition=24, depth=2, steps=100, frequencies=32, dtype=dtype)
    got, _ = emulate(program, tmp_path, args, PLANS["some stream"], chunk=40)
    exact = reference.head.ddpm_sample(
        *(a.double() if torch.is_floating_point(a) else a for a in args[:3]),
        [w.double() for w in args[3]],
        args[4].double(),
        args[5],
        args[6].double(),
        *args[7:9],
    )
    theirs = (reference.head.ddpm_sample(*args[:9]) - exact).abs()
    ours = (got - exact).abs()
    print(
        f"{NAMES[dtype]}: RMS {ours.pow(2).mean().sqrt():.2e} ({theirs.pow(2).mean().sqrt():.2e})"
    )
    assert ours.pow(2).mean().sqrt() <= 2 * theirs.pow(2).mean().sqrt()
    assert ours.max() <= 4 * theirs.max()


def test_a_row_has_the_same_bits_in_any_batch_and_plan(program, tmp_path):
    args = sample_inputs(5, guided=False, width=160, steps=2, dtype=torch.bfloat16)
    all_rows, _ = emulate(program, tmp_path, args, (2, 2, 8, 80, 0, True, False))
    args = (args[0][2:3], args[1][:, 2:3], args[2][2:3], *args[3:])
    alone, _ = emulate(program, tmp_path, args, (1, 3, 8, 54, 4, True, True))
    assert torch.equal(alone, all_rows[2:3])


def test_every_dropped_synchronisation_is_noticed(program, tmp_path):
    """Each in one of three runs at least: a barrier may be needless where a row is one block."""
    args = sample_inputs(5, width=32, condition=24, channels=8, steps=3, frequencies=16)
    halves = (*args[:3], [weight.bfloat16() for weight in args[3]], *args[4:])
    noticed: dict[str, bool] = {}
    for inputs, name in (
        (args, "some stream"),
        (halves, "normalised once"),
        (halves, "weights in L2, tiles of columns"),
    ):
        _, lines = emulate(program, tmp_path, inputs, PLANS[name], faults=True)
        for line in lines.decode().splitlines():
            site, _, result = line.rpartition(" ")
            noticed[site] = noticed.get(site, False) or result != "unnoticed"
    assert len(noticed) > 8
    assert all(noticed.values()), [site for site, seen in noticed.items() if not seen]


def test_the_real_geometry_of_mar_b(program, tmp_path):
    """132 CTAs, w 1024, d 6, 2 steps; about a minute: `make test-emulation` runs it."""
    if not os.environ.get("MARFAST_TEST_EMULATION"):
        pytest.skip("MARFAST_TEST_EMULATION=1 runs it")
    sizes = {"width": 1024, "condition": 768, "depth": 6, "steps": 2}
    args = sample_inputs(1, **sizes, dtype=torch.bfloat16)
    got, _ = emulate(program, tmp_path, args, (1, 132, 8, 8, 12, True, False))
    widened = (*args[:3], [weight.float() for weight in args[3]], *args[4:])
    exact = reference.head.ddpm_sample(*widened[:9])
    theirs = (reference.head.ddpm_sample(*args[:9]) - exact).abs().max()
    assert (got - exact).abs().max() <= 4 * theirs
