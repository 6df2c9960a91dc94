"""What the documents show runs, is applied and is read as it is written."""

import json
import subprocess
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from marfast.checkpoints import Architecture, Preset, Settings
from tests.docs.snippets import ROOT, blocks, pages_with
from tests.docs.workplace import fill_workplace
from tests.models import TINY

DOCS = ROOT / "docs"
ITS_OWN_TEST = {"adding_an_op.md", "packages.md"}  # tests/build, tests/hub
PAGES = [page for page in pages_with("python") if page.name not in ITS_OWN_TEST]
READERS = {"README.md": {1: lambda: {"model": TINY.module()}}}
"""What a reader brings to a block: the model that they have."""


def run_page(page: Path) -> dict[str, Any]:
    """What the page's Python blocks define, run one after the other."""
    names: dict[str, Any] = {}
    with torch.enable_grad():  # a page may turn gradients off
        for i, block in enumerate(blocks(page, "python")):
            names |= READERS.get(page.name, {}).get(i, dict)()
            exec(compile(block, page.name, "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_workplace(tmp_path, monkeypatch)
    run_page(page)


@pytest.mark.parametrize("page", pages_with("diff"), ids=lambda page: page.name)
def test_git_applies_a_pages_diffs(page: Path, tmp_path: Path) -> None:
    """To a file that has the old lines where the diff says that they are."""
    for i, diff in enumerate(blocks(page, "diff")):
        folder = tmp_path / str(i)
        folder.mkdir()
        name, old = before(diff)
        (folder / name).write_text("\n".join(old) + "\n")
        subprocess.run(["git", "apply", "-"], cwd=folder, input=diff, text=True, check=True)
        added = [line[1:] for line in diff.splitlines() if line.startswith("+")][1:]
        new = (folder / name).read_text().splitlines()
        assert [line for line in new if line not in old] == added


def before(diff: str) -> tuple[str, list[str]]:
    """The file that a diff changes, and its lines; what the diff doesn't show is dots."""
    name, lines, at = "", ["..."] * 400, 0
    for line in diff.splitlines():
        if line.startswith("--- a/"):
            name = line.removeprefix("--- a/")
        elif line.startswith("@@"):
            at = int(line.split()[1].removeprefix("-").partition(",")[0]) - 1
        elif not line.startswith("+"):
            lines[at], at = line[1:], at + 1
    return name, lines


@pytest.mark.parametrize("page", pages_with("json"), ids=lambda page: page.name)
def test_a_pages_configs_are_read(page: Path) -> None:
    for block in blocks(page, "json"):
        if "…" not in block:  # a part of a trace
            Preset.from_dict(json.loads(block))


def test_every_key_of_a_config_is_in_the_docs_with_its_default() -> None:
    text = (DOCS / "checkpoints.md").read_text()
    for kind in (Architecture, Settings):
        for field in fields(kind):
            assert field.default is not MISSING
            assert f"| `{field.name}` | {json.dumps(field.default)} |" in text


def test_every_op_has_an_example() -> None:
    from marfast.ops.op import OPS

    text = (DOCS / "ops.md").read_text()
    for op in OPS:
        assert f"\n## {op}\n" in text
        assert f"ops.{op}(" in text


def test_a_head_of_nobodys_runs_by_every_backend_that_says_so() -> None:
    from marfast import ops
    from marfast.reference.denoise import denoise

    page = run_page(DOCS / "heads.md")
    net, tokens, rows = page["net"], page["tokens"], page["speech"]
    assert set(page["able"]) >= {"torch", "reference"}
    for name in page["able"]:
        with ops.backend(name):
            assert torch.allclose(page["sampled"](), tokens, rtol=1e-3, atol=1e-3)
    x, t = torch.randn(4, rows.channels), torch.rand(4)
    expected = denoise(x, t, page["cond"], page["weights"], net.spec)
    torch.testing.assert_close(net(x, t, page["cond"]), expected)


def test_every_choice_of_a_head_is_in_the_docs() -> None:
    from marfast.bench.named_heads import NAMED
    from marfast.reference import HeadSpec

    text = (DOCS / "heads.md").read_text()
    for field in fields(HeadSpec):
        assert f"| `{field.name}` |" in text
    for name in NAMED:
        assert f"| `{name}` |" in text


def test_an_op_in_somebody_elses_head() -> None:
    block = run_page(DOCS / "ops.md")["MyBlock"](48)
    x, y = torch.randn(2, 5, 48)
    shift, scale, gate = block.modulation(y).chunk(3, dim=-1)
    h = block.norm(x) * (1 + scale) + shift
    expected = x + gate * block.fc2(F.silu(block.fc1(h)))
    torch.testing.assert_close(block(x, y), expected)
    grads = [torch.autograd.grad(out.sum(), block.fc1.weight)[0] for out in (block(x, y), expected)]
    torch.testing.assert_close(*grads)
