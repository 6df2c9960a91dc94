"""torch.utils.flop_counter counts an op as its definition, and comes with Triton only when it is
asked for."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from marfast import ops
from marfast.ops.op import OPS

LATE = """
import sys, marfast.ops
name = "torch.utils.flop_counter"
assert name not in sys.modules and "triton" not in sys.modules
finders = len(sys.meta_path)
from torch.utils.flop_counter import flop_registry
import torch
assert torch.ops.marfast.denoise in flop_registry
assert len(sys.meta_path) == finders - 1
"""


def count(call: object, *args: object) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*args)  # type: ignore[operator]
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_has_a_formula(name: str) -> None:
    assert getattr(torch.ops.marfast, name) in flop_registry


@pytest.mark.parametrize(
    "name", ["adaln_mlp", "ddpm_sample", "denoise", "diffusion_loss", "fused_linear"]
)
def test_an_op_counts_as_its_definition(name: str) -> None:
    op = OPS[name]
    a = op.example_args()
    assert count(op, *a) == count(op.plain, *a) > 0


def test_a_loss_and_its_gradients_count_as_forward_and_backward() -> None:
    op = OPS["diffusion_loss_gradients"]
    a = op.example_args()
    wanted = [tensor.requires_grad_() for tensor in (a.cond, *a.weights)]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(ops.diffusion_loss.plain(*a), wanted)
    assert count(op, *a) == counter.get_total_flops()


def test_a_product_is_two_operations_for_each_weight() -> None:
    a = ops.fused_linear.example_args()
    assert count(ops.fused_linear, *a) == 2 * len(a.x) * a.weight.numel()


def test_attention_is_two_products() -> None:
    qkv = torch.randn(2, 9, 3, 4, 8)
    assert count(ops.attention, qkv) == 2 * 2 * 2 * 4 * 9 * 9 * 8


def test_the_counter_may_come_after_marfast() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
