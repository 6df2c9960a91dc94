"""Golden values: how results become small files, and how a result is held against them.

Integers, text and generator states are exact. A tensor of floats is kept as a digest: its largest
magnitude, its norm, a sum with random signs, and a few of its elements.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from marfast.verifying.case import Case, Result

FOLDER = Path(__file__).parent
# Relative to the tensor's scale. Float64 schedules differ where the cosines of C libraries do.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
ELEMENTS = 5
LISTED = 100  # a larger tensor of integers is kept as a hash
MT19937_BYTES = 5016  # what follows is a normal number kept for the next draw: it differs in ULPs


def key(case: Case) -> str:
    return f"{case.what}/{case.name}"


def exact(item: str, value: Any) -> Any:
    """What JSON can say of an exact value."""
    if not isinstance(value, Tensor):
        return value
    if item == "torch generator":
        value = value[:MT19937_BYTES]
    if value.numel() <= LISTED:
        return value.tolist()
    return hashlib.sha256(value.to(torch.int64).numpy().tobytes()).hexdigest()


def digest(value: Tensor) -> Tensor:
    """[3 + ELEMENTS] float64."""
    flat = value.detach().double().flatten()
    signs = torch.from_numpy(np.random.RandomState(0).randint(0, 2, flat.numel()) * 2 - 1)
    places = torch.linspace(0, flat.numel() - 1, ELEMENTS).round().long()
    totals = torch.stack([flat.abs().max(), flat.norm(), (flat * signs).sum()])
    return torch.cat([totals, flat[places]])


def split(result: Result) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What of a result is exact, and the tensors that aren't: all floats but guidance scales."""
    floats = {
        item: value
        for item, value in result.items()
        if isinstance(value, Tensor) and value.is_floating_point() and "scales" not in item
    }
    rest = {item: exact(item, value) for item, value in result.items() if item not in floats}
    return rest | {"floats": list(floats)}, floats


def excess(value: Tensor, golden: Tensor) -> float:
    """How far a tensor is from a digest, in tolerances."""
    ours = digest(value)
    scale = golden[[0, 1, 1] + [0] * ELEMENTS] * TOLERANCE[value.dtype]
    return float(((ours - golden).abs() / scale.clamp(min=1e-300)).nan_to_num(torch.inf).max())


@functools.cache
def load() -> tuple[dict[str, Any], dict[str, Tensor]]:
    found = json.loads((FOLDER / "exact.json").read_text(encoding="utf-8"))
    return found, load_file(FOLDER / "floats.safetensors")


def save(results: dict[str, Result], made_with: dict[str, str]) -> None:
    cases: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, result in results.items():
        cases[name], floats = split(result)
        if floats:
            tensors[name] = torch.stack([digest(value) for value in floats.values()])
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items())
    text = f'{{"made with": {json.dumps(made_with)},\n"cases": {{\n{lines}\n}}}}\n'
    (FOLDER / "exact.json").write_text(text, encoding="utf-8")
    save_file(tensors, FOLDER / "floats.safetensors", metadata=made_with)


def check(case: Case, result: Result) -> None:
    """Assert that a result is what the original gave."""
    assert "error" not in result, result
    golden, digests = load()
    rest, floats = split(result)
    assert json.loads(json.dumps(rest)) == golden["cases"][key(case)]
    for (item, value), stored in zip(floats.items(), digests.get(key(case), ()), strict=True):
        apart = excess(value, stored)
        assert apart <= 1, f"{item}: {apart:.3g} times the tolerance away"
