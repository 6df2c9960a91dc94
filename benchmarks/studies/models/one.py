"""One model's own sampling beside the accelerated one, in this process.

python -m benchmarks.studies.models.one NAME PATH --out FILE
"""

import argparse
import copy
import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import marfast
from benchmarks.studies.models.own import OWN, Own
from benchmarks.studies.twin import twin
from marfast.bench.timing import in_turn, repeated
from marfast.drop_in.heads.loop import Asked, FastLoop
from marfast.drop_in.install import installed
from marfast.drop_in.methods import FastForward
from marfast.reference.denoise import ddpm_sample, denoise
from marfast.reference.diffusion import HeadOptions
from marfast.reference.head_spec import HeadSpec

SEED = 3
AT_LEAST = 0.05
"""Seconds of a run: short ones are repeated."""


class Beside:
    """A module as it is, and a twin of the same parameters, accelerated."""

    def __init__(self, own: Own, module: nn.Module, dtype: torch.dtype):
        self.own, self.dtype = own, dtype
        self.autocast = own.autocast and dtype != torch.float32
        self.inputs = torch.float32 if self.autocast else dtype
        self.module = module.to(self.inputs)
        self.twin = marfast.accelerate(twin(self.module))

    def under(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", self.dtype) if self.autocast else nullcontext()

    def row(self, tokens: int, rounds: int) -> dict[str, Any]:
        runs = {
            who: self._run(module, tokens)
            for who, module in (("own", self.module), ("accelerated", self.twin))
        }
        theirs, state = _seeded(runs["own"])
        ours, our_state = _seeded(runs["accelerated"])
        exact = self.exact(tokens)[: len(theirs)]
        row: dict[str, Any] = {
            "tokens": tokens,
            "dtype": str(self.dtype).removeprefix("torch."),
            "difference": _largest(ours, theirs, exact),
            "error": {"own": _errors(theirs, exact), "accelerated": _errors(ours, exact)},
            "same_draws": torch.equal(state, our_state),
            "left": [str(finding) for finding in marfast.findings(self.twin) if finding.left],
        }
        if rounds:
            many = {who: repeated(run, AT_LEAST) for who, run in runs.items()}
            timing = in_turn({who: run for who, (run, _) in many.items()}, rounds)
            for who, (_, count) in many.items():
                row[f"{who}_ms_p20_p50_p80"] = timing.percentiles(who, 1e3 / count)
            share = many["accelerated"][1] / many["own"][1]
            row["ratio"] = round(timing.ratio("own", "accelerated") * share, 3)
            row["others_took"] = timing.busy
        return row

    def _run(self, module: nn.Module, tokens: int) -> Any:
        sample = self.own.sample(module, tokens, self.inputs)

        def run() -> Tensor:
            with self.under():
                return sample()

        return run

    def exact(self, tokens: int) -> Tensor:
        """By float64, from the weights, inputs and random numbers of the dtype."""
        asked: list[tuple[Asked, FastLoop]] = []
        methods = [m for m in installed(self.twin).values() if isinstance(m, FastLoop)]
        if not methods:
            in_float64 = self._head_in_float64 if self.own.autocast else self._all_in_float64
            return in_float64(tokens)
        ask = methods[0].asked

        def asking(*args: Any) -> Asked | str:
            found = ask(*args)
            if isinstance(found, Asked):
                asked.append((found, methods[0]))
            return found

        methods[0].asked = asking  # type: ignore[method-assign]
        torch.manual_seed(SEED)
        self._run(self.twin, tokens)()
        del methods[0].asked
        marfast.refresh(self.twin)  # packed weights make room for float64's
        torch.manual_seed(SEED)
        return torch.cat([self._exactly(call, method) for call, method in asked])

    def _exactly(self, call: Asked, method: FastLoop) -> Tensor:
        found = method.kind.parameters(method.net(self.twin))
        weights = [w.to(self.dtype).double() for w in found.joined(found.flat)]
        noise, step_noise = (drawn.double() for drawn in call.draw())
        coefficients, timesteps, learned_range, multistep = call.table
        state = torch.stack([noise, torch.zeros_like(noise)]) if multistep else noise
        sampled = ddpm_sample(
            state,
            step_noise,
            call.cond.double(),
            weights,
            coefficients.double(),
            timesteps,
            torch.tensor([[float(scale) for scale in call.scales] or [1.0]]).double(),
            HeadOptions(call.branches, learned_range=learned_range),
            found.spec,
        )
        return sampled[0] if multistep else sampled

    def _head_in_float64(self, tokens: int) -> Tensor:
        """Its own loop, which keeps float32, round a head computed in float64."""
        exact = copy.deepcopy(self.module)
        for part in exact.modules():
            if FastForward.is_owner(part):
                found = FastForward.kind.parameters(part)
                weights = [w.to(self.dtype).double() for w in found.joined(found.flat)]
                part.forward = partial(_denoised, weights, found.spec)
        return _seeded(self.own.sample(exact, tokens, self.inputs))[0].double()

    def _all_in_float64(self, tokens: int) -> Tensor:
        module = copy.deepcopy(self.module).to(self.dtype).double()
        return _seeded(self.own.sample(module, tokens, self.inputs))[0].double()


def _denoised(weights: list[Tensor], spec: HeadSpec, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
    return denoise(x.double(), t, c.double(), weights, spec).float()


def _seeded(run: Any) -> tuple[Tensor, Tensor]:
    """The tokens of one seed, and the generator's state afterwards."""
    torch.manual_seed(SEED)
    sampled: Tensor = run()
    return sampled, torch.get_rng_state()


def _largest(ours: Tensor, theirs: Tensor, exact: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / exact.std())


def _errors(sampled: Tensor, exact: Tensor) -> dict[str, float]:
    """Against float64, of the tokens' scale."""
    off = (sampled.double()[: len(exact)] - exact).abs() / exact.std()
    return {"rms": float(off.square().mean().sqrt()), "max": float(off.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=OWN)
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", default="1,8")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--small", action="store_true", help="heads of 4 × 64: does it run?")
    options = parser.parse_args()
    own = OWN[options.name]
    module = own.build(options.path, own.sizes.small if options.small else own.sizes)
    rows = []
    for dtype in options.dtypes.split(","):
        beside = Beside(own, module, getattr(torch, dtype))
        for tokens in map(int, options.tokens.split(",")):
            rows.append(beside.row(tokens, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
        del beside
    options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
