"""Imports point one way, and generating needs neither scipy, timm nor tqdm."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import marfast

PACKAGE = Path(marfast.__file__).parent
# Each name may import itself, its own row, and what is below; the last row's only themselves.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("bench", "drop_in", "evaluation", "serving", "training", "verifying"),
    ("generation",),
    ("model",),
    ("checkpoints",),
    ("ops", "startup", "validation", "image_files"),
    ("_cpu", "reference", "_version", "profiling", "errors", "files", "hardware", "pixels"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imported(file: Path, package: Path = PACKAGE) -> set[str]:
    """The names directly under marfast that a file imports."""
    found = set()
    parts = ("marfast", *file.relative_to(package).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) + 1 - node.level] if node.level else ()
            module = [*base, *((node.module or "").split(".") if node.module else ())]
            targets = [".".join([*module, alias.name]) for alias in node.names]
        else:
            continue
        found |= {t.split(".")[1] for t in targets if t.startswith("marfast.")}
    return found


def violations(file: Path, package: Path = PACKAGE) -> list[str]:
    own = file.relative_to(package).parts[0].removesuffix(".py")
    if own == "__init__":
        return []
    if own not in RANK:
        return [f"{own} has no place in LAYERS"]
    wrong = []
    for name in imported(file, package) - {own}:
        if name not in RANK:
            wrong.append(f"{file.name} imports marfast.{name}, which has no place in LAYERS")
        elif RANK[name] < RANK[own] or RANK[own] == len(LAYERS) - 1:
            wrong.append(f"{file.relative_to(package)} imports marfast.{name}")
    return wrong


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "assets" not in p.parts)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    assert violations(file) == []


@pytest.mark.parametrize(
    ("room", "may"),
    [
        ("reference", {"reference"}),
        ("checkpoints", {"checkpoints", "errors", "files", "reference", "validation"}),
    ],
)
def test_a_room_imports_little_of_marfast(room: str, may: set[str]) -> None:
    for file in (PACKAGE / room).glob("*.py"):
        assert imported(file) <= may, file


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("ops/x.py", "from marfast.model import presets"),
        ("ops/deep/x.py", "from ...generation import loop"),
        ("model/x.py", "import marfast.generation.loop"),
        ("reference/x.py", "from marfast import ops"),
        ("reference/x.py", "from .. import _version"),
        ("generation/x.py", "from marfast.cli import app"),
        ("elsewhere.py", "import torch"),
    ],
)
def test_an_import_the_wrong_way_is_noticed(tmp_path: Path, place: str, line: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line + "\n")
    assert violations(file, tmp_path)


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_generating_needs_neither_scipy_timm_nor_tqdm() -> None:
    run(
        "import sys\n"
        "for name in ('scipy', 'timm', 'tqdm', 'torchvision'): sys.modules[name] = None\n"
        "import torch, marfast\n"
        "torch.set_num_threads(1)\n"
        "from marfast.reference import MAR\n"
        "sizes = dict(encoder_embed_dim=32, encoder_depth=1, encoder_num_heads=2, class_num=3)\n"
        "sizes |= dict(decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2)\n"
        "sizes |= dict(diffloss_d=1, diffloss_w=16, num_sampling_steps='3')\n"
        "model = MAR(img_size=4, vae_stride=1, **sizes)\n"
        "model.eval().sample_tokens(2, num_iter=2, cfg=2.0, labels=torch.tensor([0, 2]))\n"
    )


def test_every_public_name_is_found_at_its_first_use() -> None:
    run(
        "import sys, types, marfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert {*marfast.__all__} <= {*dir(marfast)}\n"
        "from marfast import *\n"
        "import marfast.drop_in, marfast.ops.choice, marfast.verifying\n"
        "assert marfast.accelerate is accelerate is marfast.drop_in.accelerate\n"
        "assert backend is marfast.ops.choice.backend and verify is marfast.verifying.verify\n"
        "rooms = [getattr(marfast, name) for name in marfast._ROOMS]\n"
        "assert all(isinstance(room, types.ModuleType) for room in rooms)\n"
        "assert not hasattr(marfast, 'nothing')\n"
        "try: from marfast import nothing\n"
        "except ImportError: pass\n"
        "else: raise AssertionError\n"
    )


def test_loading_leaves_the_compiler_and_the_cases_alone() -> None:
    run(
        "import sys, marfast\n"
        "model = marfast.load('fashion-mnist')\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "assert not any(p.is_meta for p in model.model.module.parameters())\n"
        "import marfast.verifying\n"
        "heavy = {'scipy', 'timm', 'marfast.verifying.cases',\n"
        "         'marfast.verifying.original', 'marfast.verifying.op_table'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
