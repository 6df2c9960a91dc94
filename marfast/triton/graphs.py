"""`ddpm_sample` as CUDA graphs: one capture for each bucket of tokens, replayed from static
buffers.

A step of the loop is 2 d + 3 launches of a few microseconds each, which a host can't issue as
fast. A graph's launches are fixed, its number of tokens too; so tokens are padded up to the next
bucket: rows share nothing, and what the padding computes is thrown away. Captures are kept in
order of use, the last KEPT of them, and share one pool of memory for what lies between their
launches.

Inputs are copied in and the result is copied out on the current stream; use one stream at a time.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import tiles

KEPT = 16

Run = Callable[..., Tensor]
Replay = Callable[[], Any]
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]

_pools: dict[torch.device, Any] = {}


def bucket(tokens: int) -> int:
    """The smallest of 8, 12, 16, 24, 32, 48, ... that holds so many: padding never takes the rows
    of a step to another tile."""
    whole = max(8, tiles.power_of_two(tokens))
    return 3 * whole // 4 if whole > 8 and tokens <= 3 * whole // 4 else whole


def capture(function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """`function`'s launches as a graph: how to replay it, and where its result then lies."""
    device = torch.device("cuda", torch.cuda.current_device())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()  # what isn't compiled yet is compiled here: a capture can't
    torch.cuda.current_stream().wait_stream(side)
    if device not in _pools:
        _pools[device] = torch.cuda.graph_pool_handle()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pools[device]):
        result = function()
    return graph.replay, result


class Bucket:
    """One capture: static inputs for `capacity` tokens, `copies` rows each."""

    def __init__(
        self,
        capture: Capture,
        run: Run,
        capacity: int,
        copies: int,
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        temperature: float,
        clip_denoised: bool,
    ) -> None:
        noise, step_noise, cond, schedule, embedding, guidance = inputs
        self.noise = noise.new_zeros((capacity, noise.shape[1]))
        self.step_noise = step_noise.new_zeros((len(step_noise), capacity, noise.shape[1]))
        self.cond = cond.new_zeros((copies * capacity, cond.shape[1]))
        self.fixed = [torch.zeros_like(tensor) for tensor in (schedule, embedding, guidance)]
        self.copies = copies
        schedule, embedding, guidance = self.fixed
        self.replay, self.result = capture(
            lambda: run(
                *(self.noise, self.step_noise, self.cond, weights, schedule, embedding, guidance),
                *(temperature, clip_denoised),
            )
        )

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        noise, step_noise, cond, *fixed = inputs
        tokens = len(noise)
        self.noise[:tokens].copy_(noise)
        self.step_noise[:, :tokens].copy_(step_noise)
        self.cond.unflatten(0, (self.copies, -1))[:, :tokens].copy_(
            cond.unflatten(0, (self.copies, tokens))
        )
        for static, given in zip(self.fixed, fixed, strict=True):
            static.copy_(given)
        self.replay()
        return self.result[:tokens].clone()


_buckets: OrderedDict[Hashable, Bucket | None] = OrderedDict()


def _place(tensor: Tensor) -> Hashable:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


@torch.no_grad()
def sample(
    run: Run,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    temperature: float,
    clip_denoised: bool,
) -> Tensor:
    """`run(noise, step_noise, cond, weights, schedule, embedding, guidance, temperature,
    clip_denoised)` by a graph; inputs are its tensors but the weights. Plain launches, with a
    warning that says why, where it can't be captured."""
    noise, _, cond, *fixed = inputs
    capacity, copies = bucket(len(noise)), len(cond) // len(noise)
    shapes = (noise.shape[1], cond.shape[1], *(tensor.shape for tensor in fixed))
    places = tuple(map(_place, weights))
    key = (noise.device, capacity, copies, shapes, temperature, clip_denoised, places)
    if key not in _buckets:
        settings = (weights, temperature, clip_denoised)
        try:
            with torch.inference_mode(False):  # else its tensors could be written only there
                _buckets[key] = Bucket(capture, run, capacity, copies, inputs, *settings)
        except RuntimeError as error:
            _buckets[key] = None
            warnings.warn(
                f"ddpm_sample runs as single launches, for its loop couldn't be captured: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        if len(_buckets) > KEPT:
            _buckets.popitem(last=False)
    _buckets.move_to_end(key)
    kept = _buckets[key]
    if kept is not None:
        return kept(inputs)
    noise, step_noise, cond, *fixed = inputs
    return run(noise, step_noise, cond, weights, *fixed, temperature, clip_denoised)
