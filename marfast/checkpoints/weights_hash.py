"""What a model's weights are told by."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch


def weights_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes, shapes and values: the same from whatever file they come."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """Of a tokenizer's weights, where it is a module; else the name of its class."""
    if state := getattr(tokenizer, "state_dict", None):
        return weights_hash(state())
    return str(type(tokenizer).__qualname__)
