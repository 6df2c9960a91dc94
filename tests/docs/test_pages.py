"""The examples of the docs run as they are written."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "drop_in.md",
    "editing.md",
    "evaluation.md",
    "heads.md",
    "models.md",
    "ops.md",
    "profiling.md",
    "sampler.md",
    "samplers.md",
    "training.md",
]


def run_page(name: str) -> dict[str, Any]:
    """What the page's Python blocks define, run one after the other."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE
    )
    assert blocks, name
    names: dict[str, Any] = {}
    with torch.enable_grad():  # a page may turn gradients off
        for block in blocks:
            exec(compile(block, name, "exec"), names)
    return names


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_examples_run(name: str) -> None:
    run_page(name)


def test_every_op_has_an_example() -> None:
    from marfast.ops.op import OPS

    text = (DOCS / "ops.md").read_text()
    for op in OPS:
        assert f"\n## {op}\n" in text
        assert f"ops.{op}(" in text


def test_a_head_of_nobodys_runs_by_every_backend_that_says_so() -> None:
    from marfast import ops
    from marfast.reference.denoise import denoise

    page = run_page("heads.md")
    net, tokens, rows = page["net"], page["tokens"], page["speech"]
    assert set(page["able"]) >= {"torch", "reference"}
    for name in page["able"]:
        with ops.backend(name):
            assert torch.allclose(page["sampled"](), tokens, rtol=1e-3, atol=1e-3)
    x, t = torch.randn(4, rows.channels), torch.rand(4)
    expected = denoise(x, t, page["cond"], page["weights"], net.spec)
    torch.testing.assert_close(net(x, t, page["cond"]), expected)


def test_every_choice_of_a_head_is_in_the_docs() -> None:
    from dataclasses import fields

    from marfast.bench.named_heads import NAMED
    from marfast.reference import HeadSpec

    text = (DOCS / "heads.md").read_text()
    for field in fields(HeadSpec):
        assert f"| `{field.name}` |" in text
    for name in NAMED:
        assert f"| `{name}` |" in text


def test_an_op_in_somebody_elses_head() -> None:
    block = run_page("ops.md")["MyBlock"](48)
    x, y = torch.randn(2, 5, 48)
    shift, scale, gate = block.modulation(y).chunk(3, dim=-1)
    h = block.norm(x) * (1 + scale) + shift
    expected = x + gate * block.fc2(F.silu(block.fc1(h)))
    torch.testing.assert_close(block(x, y), expected)
    grads = [torch.autograd.grad(out.sum(), block.fc1.weight)[0] for out in (block(x, y), expected)]
    torch.testing.assert_close(*grads)
