"""`ddpm_sample`: the same bits everywhere, accuracy over whole samples, hostile shapes."""

import itertools
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.ddpm_sample.cpu import PAIRS, Groups
from marfast.ops.head.cpu import time_embedding
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from marfast.reference import HeadSpec, SimpleMLPAdaLN
from marfast.reference.timesteps import timestep_embedding
from marfast.verifying.compare import to_double
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa, with_defined_bits
from tests.ops.heads import sample_inputs as inputs

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("needs_native")


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
            x = ops.ddpm_step.plain(x, output, noise_t, row, guidance, *options)
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(sizes, dtype, monkeypatch):
    args = inputs(**sizes, dtype=dtype)
    results = on_every_isa(ops.ddpm_sample, *args)
    portable = results["portable"]
    assert portable.isfinite().all()
    exact = reference_in_noises_dtype(*to_double(args))
    few = 1e-6 if dtype == torch.float32 else 0.05  # of a few values, PyTorch may be right by luck
    allowed = 4 * (by_reference(*args) - exact).norm() + few * exact.norm()
    for isa, actual in results.items():
        assert (actual - exact).norm() <= allowed, isa
    for isa, actual in with_defined_bits(results, dtype).items():
        assert_bitwise_equal(actual, portable, isa)
    expected = ops.ddpm_sample(*args)
    before = torch.get_num_threads()
    try:
        for threads, least in itertools.product((1, 2, 3, 4), (1, 1 << 30)):
            monkeypatch.setattr(sys.modules[Groups.__module__], "LEAST_OWN", least)
            torch.set_num_threads(threads)
            assert_bitwise_equal(ops.ddpm_sample(*args), expected, f"{threads} threads")
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("guarded_outputs")
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_split_of_the_tokens_gives_the_same_bits(guided, dtype):
    args = inputs(19, guided=guided, dtype=dtype)
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
    if noise.dtype == torch.float64:
        weights = [weight.double() for weight in weights]
    steps = timesteps.long()
    return ops.ddpm_sample.plain(noise, step_noise, cond, weights, schedule, steps, *rest)


@pytest.mark.parametrize("width", [24, 192, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_against_float64_over_whole_samples(width, dtype, isa):
    cases = [inputs(6, width=width, steps=20, dtype=dtype, seed=seed) for seed in range(8)]
    with cpu.cpu_isa(isa):
        assert_as_accurate(ops.ddpm_sample, reference_in_noises_dtype, cases)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_loop_of_denoise_and_ddpm_step(dtype, isa):
    x, step_noise, cond, weights, schedule, timesteps, guidance, *options = args = inputs(
        tokens=4, width=77, channels=5, condition=31, dtype=dtype
    )
    packed = ops.pack_head(weights)
    with cpu.cpu_isa(isa):
        expected = ops.ddpm_sample(*args, packed)
        for t, coefficients, noise in zip(timesteps, schedule, step_noise, strict=True):
            output = ops.denoise(x.repeat(2, 1), t.expand(8), cond, weights, packed)
            x = ops.ddpm_step(x, output, noise, coefficients, guidance, *options)
    assert_bitwise_equal(x, expected)


def test_float16_weights_compute_as_the_float32_that_they_are():
    args = inputs(dtype=torch.float16)
    as_float32 = (*args[:3], [weight.float() for weight in args[3]], *args[4:])
    assert_bitwise_equal(ops.ddpm_sample(*args), ops.ddpm_sample(*as_float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_ahead_changes_nothing(dtype):
    args = inputs(dtype=dtype)
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


def test_ctrl_c_is_heard_between_chunks_of_steps(monkeypatch):
    run_chunk, calls = cpu.extension().ddpm_sample, []

    def interrupted(**arguments: Any) -> None:
        calls.append(arguments)
        run_chunk(**arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cpu.extension(), "ddpm_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ops.ddpm_sample(*inputs(PAIRS // 2, steps=8))
    assert len(calls) == 2


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
from tests.limits import HANG
from tests.ops.heads import sample_inputs
from marfast import ops
torch.set_num_threads(2)
torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # the OpenMP runtime has its threads now
pid = os.fork()
signal.alarm(int(HANG))
result = ops.ddpm_sample(*sample_inputs(5))
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
        actual = time_embedding(timesteps, frequencies, HeadSpec())
        assert_bitwise_equal(actual, timestep_embedding(timesteps, frequencies)[None])
        scaled = HeadSpec(times=2, time_scale=2.5)
        several = time_embedding(torch.stack([timesteps, timesteps + 1], 1), frequencies, scaled)
        for i in (0, 1):
            assert_bitwise_equal(several[i], timestep_embedding((timesteps + i) * 2.5, frequencies))


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
    (
        with_weight(9, torch.zeros(41)),
        ValueError,
        "weights[9] (res_blocks.0.in_ln.bias) has shape",
    ),
    (
        with_weight(14, torch.zeros(120, 41)),
        ValueError,
        "weights[14] (res_blocks.0.adaLN_modulation.1.weight) has shape [120, 41]",
    ),
    (
        with_weight(2, torch.zeros(40, 40).double()),
        TypeError,
        "weights[2] (time_embed.mlp.2.weight) has",
    ),
    (replaced(4, torch.zeros(4, 6)), ValueError, "schedule has shape [4, 6]"),
    (replaced(5, torch.zeros(4).half()), TypeError, "timesteps has dtype float16"),
    (
        replaced(0, torch.zeros(3, 3, 16)),
        ValueError,
        "noise has shape [3, 3, 16]; it must be [2, N",
    ),
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


def test_a_shortened_call_has_each_steps_own_guidance():
    op = OPS["ddpm_sample"]
    a = op.example_args()
    doubled = {name: torch.cat([getattr(a, name)] * 2) for name in ("schedule", "timesteps")}
    a = a._replace(step_noise=torch.cat([a.step_noise] * 2), guidance=torch.rand(10), **doubled)
    short = op.shortened(a)
    assert torch.equal(short.guidance, a.guidance[::2])
    assert torch.equal(short.timesteps, a.timesteps[::2])
    assert ops.ddpm_sample(*short).isfinite().all()
