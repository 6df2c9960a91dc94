"""`ddpm_sample`: the same bits everywhere, accuracy over whole samples, hostile shapes."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.ddpm_sample import PAIRS
from marfast.ops.head import HeadShape, time_embedding
from marfast.reference import SimpleMLPAdaLN, create_diffusion
from marfast.reference import head as reference
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("needs_native")


def inputs(
    tokens: int = 3,
    *,
    guided: bool = True,
    steps: int = 4,
    channels: int = 16,
    condition: int = 24,
    width: int = 40,
    depth: int = 2,
    frequencies: int = 256,
    clip: bool = True,
    seed: int = 0,
) -> tuple[Any, ...]:
    """All arguments but `packed`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    shape = HeadShape(channels, condition, width, depth, frequencies)
    weights = [draw(*sizes) * max(1, sizes[-1]) ** -0.5 for sizes in shape.expected()]
    rows = 2 * tokens if guided else tokens
    return (
        draw(tokens, channels),
        draw(steps, tokens, channels),
        draw(rows, condition),
        weights,
        *create_diffusion(str(steps)).sampling_schedule(),
        torch.tensor([2.5]),
        0.9,
        clip,
    )


def by_reference(*args: Any) -> Tensor:
    with ops.backend("reference"):
        return ops.ddpm_sample(*args)


@pytest.mark.parametrize("guided", [False, True])
def test_the_reference_backend_is_the_modules_own_loop(guided):
    noise, step_noise, cond, weights, schedule, timesteps, guidance, *options = inputs(
        guided=guided
    )
    net = SimpleMLPAdaLN(16, 40, 32, 24, 2)
    names = list(net.state_dict())
    net.load_state_dict(dict(zip(names, weights, strict=True)))
    x = noise
    with torch.no_grad():
        for t, row, noise_t in zip(timesteps, schedule, step_noise, strict=True):
            rows = torch.cat([x, x]) if guided else x
            output = net(rows, t.expand(len(rows)), cond)
            x = reference.ddpm_step(x, output, noise_t, row, guidance, *options)
    actual = by_reference(noise, step_noise, cond, weights, schedule, timesteps, guidance, *options)
    assert_bitwise_equal(actual, x)


# Panels are 32 wide, blocks of k 256 long, tiles up to 14 rows; no width a multiple of a vector.
@pytest.mark.parametrize(
    "sizes",
    [
        {"tokens": 1},
        {"tokens": 1, "guided": False},
        {"tokens": 0},
        {"tokens": 2, "guided": False, "width": 1},
        {"tokens": 17, "width": 33, "channels": 3},
        {"tokens": 3, "width": 257, "depth": 1, "condition": 1},
        {"tokens": 7, "width": 192, "depth": 3, "channels": 1},
        {"depth": 0},
        {"steps": 2, "channels": 64, "width": 95},
        {"frequencies": 7, "clip": False},
        {"tokens": PAIRS // 2 + 5, "width": 17, "steps": 3},
        {"tokens": PAIRS + 5, "guided": False, "width": 17, "steps": 3},
    ],
    ids=str,
)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(sizes):
    args = inputs(**sizes)
    results = on_every_isa(ops.ddpm_sample, *args)
    portable = results["portable"]
    assert portable.isfinite().all()
    torch.testing.assert_close(portable, by_reference(*args), rtol=1e-4, atol=1e-4)
    for isa, actual in results.items():
        assert_bitwise_equal(actual, portable, isa)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            assert_bitwise_equal(ops.ddpm_sample(*args), portable, f"{threads} threads")
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("guarded_outputs")
@pytest.mark.parametrize("guided", [False, True])
def test_any_split_of_the_tokens_gives_the_same_bits(guided):
    args = inputs(19, guided=guided)
    noise, step_noise, cond, *rest = args
    whole = ops.ddpm_sample(*args)
    for part in (slice(0, 1), slice(1, 4), slice(4, 19)):
        rows = torch.cat([half[part] for half in cond.split(19)])
        actual = ops.ddpm_sample(noise[part], step_noise[:, part], rows, *rest)
        assert_bitwise_equal(actual, whole[part])


def reference_in_noises_dtype(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: list[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    *rest: Any,
) -> Tensor:
    weights = [weight.to(noise.dtype) for weight in weights]
    return reference.ddpm_sample(
        noise, step_noise, cond, weights, schedule, timesteps.long(), *rest
    )


@pytest.mark.parametrize("width", [24, 192, 300])
def test_error_against_float64_over_whole_samples(width):
    cases = [inputs(6, width=width, steps=20, seed=seed) for seed in range(8)]
    assert_as_accurate(ops.ddpm_sample, reference_in_noises_dtype, cases)


def test_packing_ahead_changes_nothing():
    args = inputs()
    packed = ops.pack_head(args[3])
    assert packed.isfinite().all()
    assert_bitwise_equal(ops.ddpm_sample(*args, packed), ops.ddpm_sample(*args))


def test_layouts_do_not_change_the_bits():
    args = inputs(5)
    noise, step_noise, cond, weights, *rest = args

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t + 1], dim=-1)[..., 0]

    actual = ops.ddpm_sample(
        strided(noise), strided(step_noise), strided(cond), [strided(w) for w in weights], *rest
    )
    assert_bitwise_equal(actual, ops.ddpm_sample(*args))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_extreme_inputs_stay_in_their_token(value):
    args = inputs(4)
    expected = ops.ddpm_sample(*args)
    args[2][1, 3] = value  # the conditional row of token 1
    actual = ops.ddpm_sample(*args)
    for token in (0, 2, 3):
        assert_bitwise_equal(actual[token], expected[token])
    finite = by_reference(*args).isfinite()
    assert torch.equal(actual.isfinite(), finite)


def test_several_threads_may_call_at_once():
    args = inputs(5)
    expected = ops.ddpm_sample(*args)
    results: list[Tensor] = []

    def call() -> None:
        torch.set_num_threads(2)
        results.append(ops.ddpm_sample(*args))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_bitwise_equal(result, expected)


FORK = """
import os, signal, torch
from tests.ops.test_ddpm_sample import inputs
from marfast import ops
torch.set_num_threads(2)
torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # the OpenMP runtime has its threads now
pid = os.fork()
signal.alarm(60)
result = ops.ddpm_sample(*inputs(5))
if pid == 0:
    os._exit(0 if result.isfinite().all() else 1)
_, status = os.waitpid(pid, 0)
print("child", os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_can_sample():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "child 0", done.stderr


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_callers_default_dtype_does_not_matter(dtype):
    args = inputs(3)
    expected = ops.ddpm_sample(*args)
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            packed = ops.pack_head(args[3])
            actual = ops.ddpm_sample(*args)
        assert_bitwise_equal(ops.ddpm_sample(*args, packed), expected)
        assert_bitwise_equal(actual, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_time_embedding_is_the_references():
    timesteps = torch.tensor([0, 1, 500, 999])
    for frequencies in (256, 7):
        torch.testing.assert_close(
            time_embedding(tuple(timesteps.tolist()), frequencies),
            reference.timestep_embedding(timesteps, frequencies),
            rtol=0,
            atol=1e-4,  # a float32 argument near 999 is known to 3e-5
        )


def test_opcheck():
    torch.library.opcheck(
        torch.ops.marfast.ddpm_sample.default,
        inputs(),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def replaced(place: int, value: Any) -> tuple[Any, ...]:
    args = list(inputs())
    args[place] = value
    return tuple(args)


def with_weight(place: int, value: Tensor) -> tuple[Any, ...]:
    args = inputs()
    args[3][place] = value
    return args


ERRORS = [
    (replaced(0, torch.zeros(3)), ValueError, "noise has shape [3]; it must be [N, C]"),
    (replaced(0, torch.zeros(3, 5)), ValueError, "noise has shape [3, 5]; it must be [N, C]"),
    (replaced(0, torch.zeros(3, 16).half()), TypeError, "noise has dtype float16"),
    (replaced(1, torch.zeros(4, 2, 16)), ValueError, "step_noise has shape [4, 2, 16]"),
    (replaced(2, torch.zeros(5, 24)), ValueError, "cond has 5 rows; it must have N = 3"),
    (replaced(2, torch.zeros(6, 23)), ValueError, "cond has shape [6, 23]"),
    (replaced(3, [torch.zeros(1)] * 13), ValueError, "weights has 13 tensors"),
    (with_weight(9, torch.zeros(41)), ValueError, "weights[9] has shape [41]"),
    (with_weight(14, torch.zeros(120, 41)), ValueError, "weights[14] has shape [120, 41]"),
    (with_weight(2, torch.zeros(40, 40).double()), TypeError, "weights[2] has dtype float64"),
    (replaced(4, torch.zeros(4, 6)), ValueError, "schedule has shape [4, 6]"),
    (replaced(5, torch.zeros(4)), TypeError, "timesteps has dtype float32"),
    (replaced(5, torch.tensor(1)), ValueError, "timesteps has shape []; it must be [S]"),
    (replaced(2, torch.tensor(1.0)), ValueError, "cond has 0 rows"),
    (inputs(condition=0), ValueError, "allowed are sizes from 1"),
    (inputs(frequencies=0), ValueError, "allowed are sizes from 1"),
    (replaced(6, torch.zeros(2)), ValueError, "guidance has shape [2]"),
    ((*inputs(), torch.zeros(7)), ValueError, "packed: it is not what ops.pack_head returns"),
    ((*inputs(), torch.zeros(7, 2)[:, 0]), ValueError, "packed: it is not contiguous"),
    ((*inputs(), torch.zeros(7).double()), TypeError, "packed has dtype float64"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    pattern = re.escape(message)
    with pytest.raises(kind, match=pattern):
        ops.ddpm_sample(*args)
    with pytest.raises(kind, match=pattern):
        torch.ops.marfast.ddpm_sample(*args)
