"""`marfast.verify`: what it refuses, what it notices, and the real comparison on a checkout.

The stand-in for the original is the reference itself behind the original's file names: whatever is
changed in it must be reported, and nothing else.
"""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marfast.ops.op import OPS, Op
from marfast.verifying import approximations, compare, op_table, original, verify
from marfast.verifying.cases import all_cases
from marfast.verifying.original import OriginalError
from marfast.verifying.report import Difference, OpRow, Report, Row
from tests.helpers import assert_as_accurate

STAND_IN = {
    "models/mar.py": "from marfast.reference.mar import *\n",
    "models/diffloss.py": (
        "from marfast.reference.head import *\n"
        "TimestepEmbedder.timestep_embedding = staticmethod(timestep_embedding)\n"
    ),
    "models/vae.py": "from marfast.reference.vae import *\n",
    "diffusion/__init__.py": (
        "from marfast.reference import diffusion\n"
        "from marfast.reference.diffusion import space_timesteps\n"
        "def create_diffusion(timestep_respacing, noise_schedule):\n"
        "    return diffusion.create_diffusion(timestep_respacing)\n"
    ),
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(original, "require_packages", lambda: None)
    for file in original.FILES:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.get(file, ""))
    return tmp_path


def change(checkout: Path, code: str) -> None:
    with (checkout / "models/mar.py").open("a") as file:
        file.write(code)


def failed(report: Report) -> dict[str, list[str]]:
    return {row.what: [d.case for d in row.differences] for row in report.rows if not row.ok}


def test_equal_results_pass_and_leave_this_process_alone(checkout: Path) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    cuda = torch.Tensor.cuda
    seen: list[tuple[str, int, int]] = []
    only = ["orders", "time embedding", "training masks", "loss of each token"]
    report = verify(checkout, only=only, progress=lambda *event: seen.append(event))
    assert report.ok, failed(report)
    assert {row.what for row in report.rows} == set(only)
    assert all(row.cases == row.bit_equal > 0 for row in report.rows)
    assert [done for _, done, _ in seen] == list(range(report.cases))
    assert {total for *_, total in seen} == {report.cases}
    assert report.commit is None
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == torch.get_num_threads()
    assert torch.Tensor.cuda is cuda


@pytest.mark.parametrize(
    ("code", "what", "detail"),
    [
        (  # the last bit of one number
            "_orders = MAR.sample_orders\n"
            "def last(self, bsz):\n"
            "    orders = _orders(self, bsz)\n"
            "    orders[-1, -1] ^= 1\n"
            "    return orders\n"
            "MAR.sample_orders = last\n",
            "orders",
            "orders: 1 of 4 numbers, largest 1",
        ),
        (  # one more draw
            "_orders = MAR.sample_orders\n"
            "def draws(self, bsz):\n"
            "    torch.rand(1)\n"
            "    return _orders(self, bsz)\n"
            "MAR.sample_orders = draws\n",
            "orders",
            "torch generator: ",
        ),
        (
            "def broken(self, bsz):\n"
            "    raise IndexError('no such order')\n"
            "MAR.sample_orders = broken\n",
            "orders",
            "the original raised IndexError: no such order",
        ),
    ],
    ids=["a bit", "a draw", "an error"],
)
def test_a_planted_difference_is_reported(
    checkout: Path, code: str, what: str, detail: str
) -> None:
    change(checkout, "import torch\n" + code)
    report = verify(checkout, only=["orders", "time embedding"])
    assert not report.ok
    assert list(failed(report)) == [what]
    assert report.rows[0].bit_equal == 0
    assert report.rows[0].differences[0].detail.startswith(detail)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False


def test_an_original_that_does_not_run_is_an_error(checkout: Path) -> None:
    change(checkout, "import nothing_of_that_name\n")
    with pytest.raises(OriginalError, match="No module named 'nothing_of_that_name'"):
        verify(checkout, only=["orders"])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="elsewhere: no such directory"):
        verify(tmp_path / "elsewhere")


def test_a_missing_file_is_named(checkout: Path) -> None:
    (checkout / "diffusion/respace.py").unlink()
    message = r"not a checkout of LTH14/mar: diffusion/respace\.py is missing"
    with pytest.raises(ValueError, match=message):
        verify(checkout)


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({"scipy": "1", "tqdm": "4"}, r"timm is not installed.*'marfast\[original\]'"),
        ({"timm": "1.0.9", "scipy": "1"}, r"timm 1\.0\.9 is installed; .* needs timm 0\.9\.12"),
        ({"timm": "0.9.12", "tqdm": "4"}, r"scipy is not installed.*'marfast\[original\]'"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], message: str
) -> None:
    for file in original.FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ValueError, match=message) as error:
        verify(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unknown_row_is_named(checkout: Path) -> None:
    with pytest.raises(ValueError, match="only: nonsense; allowed are initial weights, orders, "):
        verify(checkout, only=["nonsense"])


def test_cases_are_many_and_named_once() -> None:
    names = [(case.what, case.name) for case in all_cases()]
    assert len(names) >= 100
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"a": torch.ones(2)}, {"a": torch.ones(2)}, None),
        ({"a": torch.zeros(1)}, {"a": -torch.zeros(1)}, "a: 0 of 1 numbers, largest 0"),
        ({"a": torch.ones(2)}, {"a": torch.ones(2).double()}, "a: float32 [2] against float64 [2]"),
        ({"a": torch.ones(2)}, {"a": torch.ones(1, 2)}, "a: float32 [2] against float32 [1, 2]"),
        ({"a": torch.tensor(torch.nan)}, {"a": torch.tensor(torch.nan)}, "a: not finite"),
        ({"a": [1], "b": 2}, {"a": [2], "b": 3}, "a: [1] against [2] (and 1 more)"),
        ({"a": 1}, {"b": 1}, "only one side has a, b"),
        ({"error": "E: x"}, {"a": 1}, "the reference raised E: x"),
    ],
)
def test_differences_are_described(
    ours: dict[str, Any], theirs: dict[str, Any], expected: str | None
) -> None:
    found = compare.difference(ours, theirs)
    assert (found and found[0]) == expected


def test_ulps_are_counted_through_zero() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tiny = torch.finfo(dtype).smallest_normal
        steps = torch.tensor([0.0, -0.0, 1.0], dtype=dtype)
        assert not compare.ulp_distance(steps, steps.flip(0)[[1, 2, 0]]).any()
        one = torch.ones(1, dtype=dtype)
        assert compare.ulp_distance(one, one + torch.finfo(dtype).eps) == 1
        assert compare.ulp_distance(one * tiny, -one * tiny) > 1
    assert compare.bit_equal_share(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])) == 0.5


def test_doubles_are_made_of_floats_only_and_in_lists_too() -> None:
    whole, half = torch.tensor([999]), torch.ones(1, dtype=torch.bfloat16)
    kept, [made, (also,)], text, none = compare.to_double((whole, [half, (half,)], "a", None))
    assert kept is whole
    assert made.dtype == also.dtype == torch.float64
    assert (text, none) == ("a", None)


def test_accuracy_is_against_float64_throughout() -> None:
    def reference(weights: list[torch.Tensor], steps: torch.Tensor) -> torch.Tensor:
        assert steps.dtype == torch.int64
        return weights[0] / 3

    def off(weights: list[torch.Tensor], steps: torch.Tensor) -> torch.Tensor:
        return reference(weights, steps) * (1 + 2**-20)

    cases = [([torch.rand(100)], torch.tensor([1]))]
    assert_as_accurate(reference, reference, cases)
    with pytest.raises(AssertionError, match="maximum"):
        assert_as_accurate(off, reference, cases)


@pytest.mark.parametrize("name", sorted(OPS))
def test_the_table_computes_each_thing_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, run = OPS[name], op_table._Variant.run
    runs: list[tuple[op_table._Variant, int]] = []
    exact: list[torch.dtype] = []

    def counted(variant: op_table._Variant, op: Op, args: Any) -> torch.Tensor:
        runs.append((variant, id(args)))
        return run(variant, op, args)

    def plain(*args: Any) -> torch.Tensor:
        result = op.backends["reference"].run(op.bind(*args))
        exact.append(result.dtype)
        return result

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(op_table, "OPS", {name: op})
    monkeypatch.setattr(op_table._Variant, "run", counted)
    monkeypatch.setattr(op, "plain", plain)
    rows = op_table.rows(lambda *_: None)
    assert len(set(runs)) == len(runs)
    ran = {(row.example, row.dtype) for row in rows if row.reason is None}
    assert exact == [torch.float64] * len(op_table.SEEDS) * len(ran)


def test_a_report_is_ok_only_if_every_row_is() -> None:
    row, bad = Row("a", 2, 2), Row("b", 2, 1, (Difference("c", "d", 0.5),))
    assert Report((row,)).ok
    assert not Report((row, bad)).ok
    assert not Report(ops=(OpRow("o", "cpu", None, "cpu", "float32", ok=False),)).ok
    assert [r["ok"] for r in Report((row, bad)).to_dict()["rows"]] == [True, False]


@pytest.mark.slow
def test_every_backend_here_is_as_good_as_pytorch() -> None:
    report = verify()
    assert report.ok, [row for row in report.ops if not row.ok]
    assert report.rows == ()
    ran = [row for row in report.ops if row.reason is None]
    own = {(isa, "bfloat16") for isa in op_table.OWN_PRODUCTS}
    defined = [row for row in ran if (row.isa, row.dtype) not in own]
    assert all(row.bit_equal == 1 for row in defined if row.compared_with == "portable")
    assert all(row.reason for row in report.ops if row.bit_equal is None)
    json.dumps(report.to_dict())


@pytest.mark.slow
@pytest.mark.skipif(
    "MARFAST_ORIGINAL" not in os.environ, reason="MARFAST_ORIGINAL names no checkout of LTH14/mar"
)
def test_the_reference_is_the_original() -> None:
    report = verify(os.environ["MARFAST_ORIGINAL"])
    assert report.ok, failed(report)
    assert report.cases >= 100


def test_approximations_are_measured_from_what_they_stand_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(approximations, "IMAGES", 20)
    monkeypatch.setattr(approximations, "EXACT", {"steps": 10})
    changes = ({}, {"steps": 5}, {"temperature": 3.0})
    monkeypatch.setattr(approximations, "APPROXIMATIONS", changes)
    exact, others, same, fewer, hot = verify(approximations=True).approximations
    assert exact.rms == exact.largest == same.rms == same.largest == 0
    assert 0 < fewer.rms < others.rms
    assert exact.accuracy == same.accuracy > hot.accuracy
    with pytest.raises(ValueError, match="approximations: True; allowed without `original` only"):
        verify("there", approximations=True)
