"""Schedules, orders, masks, guidance scales: alike on every machine; and initial weights."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from marfast.verifying.case import Case, Implementation, Result, generator_states, seed_all
from marfast.verifying.cases.models import TINY, VARIANTS

SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
COUNTS = ("", "1000", "250", "100", "25", "2", "ddim5", "ddim50", "ddim250")
SECTIONS = ("4,3,1", "10,15,20", "1,1,1,1,1,1,1", "333,333,333", [7, 5])
RESPACINGS: tuple[Any, ...] = COUNTS + SECTIONS
IMPOSSIBLE = ("1001", "ddim300", "334,333,333", "400,300,300", "ddim0", "fast")
# tokens: the numbers of iterations tried
GRIDS = {4: range(1, 5), 16: range(1, 17), 49: range(1, 50), 256: (1, 2, 8, 16, 32, 64, 100, 256)}
SCALE_GRIDS = {49: (1, 2, 7, 16, 48, 49), 256: (1, 8, 64)}


def initial_weights(options: dict[str, Any], implementation: Implementation) -> Result:
    seed_all(1)
    return dict(implementation.mar(**TINY | options).state_dict()) | generator_states()


def orders(batch: int, side: int, implementation: Implementation) -> Result:
    model = implementation.mar(**TINY | {"img_size": side, "patch_size": 1})
    seed_all(2)
    return {"orders": model.sample_orders(batch)} | generator_states()


def schedule(respacing: Any, implementation: Implementation) -> Result:
    process = implementation.create_diffusion(respacing)
    result: Result = {name: torch.from_numpy(getattr(process, name)) for name in SCHEDULE}
    return result | {"timestep_map": list(process.timestep_map), "steps": process.num_timesteps}


def impossible_respacing(respacing: str, implementation: Implementation) -> Result:
    try:
        return {"kept": sorted(implementation.space_timesteps(1000, respacing))}
    except ValueError:
        return {"raises": "ValueError"}


def iterations(model: Any, batch: int, num_iter: int, cfg: Any, cfg_schedule: str) -> Result:
    """Masks, predicted positions and guidance scales of `sample_tokens`, the networks left out."""
    masks: list[Tensor] = []
    positions: list[Tensor] = []
    scales: list[Tensor] = []
    kinds: list[str] = []

    def encoder(x: Tensor, mask: Tensor, class_embedding: Tensor) -> Tensor:
        masks.append(mask.float())
        return x

    def decoder(x: Tensor, mask: Tensor) -> Tensor:
        return torch.arange(mask.numel()).view(*mask.shape, 1)

    def sample(z: Tensor, temperature: Any, scale: Any) -> Tensor:
        positions.append(z[:, 0])
        scales.append(torch.as_tensor(scale).reshape(-1))
        kinds.append(f"{type(scale).__name__} {list(getattr(scale, 'shape', ()))}")
        return z.float().expand(-1, model.token_embed_dim)

    model.forward_mae_encoder, model.forward_mae_decoder = encoder, decoder
    model.diffloss.sample = sample
    seed_all(3)
    tokens = model.sample_tokens(batch, num_iter=num_iter, cfg=cfg, cfg_schedule=cfg_schedule)
    return {
        "masks": torch.stack(masks).to(torch.uint8),
        "positions": torch.cat(positions),
        "rows": [len(rows) for rows in positions],
        "scales": torch.cat(scales),
        "kinds": kinds,
        "filled": tokens,
    }


def _model(implementation: Implementation, seq_len: int) -> Any:
    side = round(seq_len**0.5)
    return implementation.mar(**TINY | {"img_size": side, "patch_size": 1})


def masks(seq_len: int, cfg: float, implementation: Implementation) -> Result:
    result: Result = {}
    model = _model(implementation, seq_len)
    for num_iter in GRIDS[seq_len]:
        run = iterations(model, 2, num_iter, cfg, "linear")
        result |= {f"K={num_iter} {item}": value for item, value in run.items() if item != "scales"}
    return result | generator_states()


def scales(seq_len: int, cfg: Any, cfg_schedule: str, implementation: Implementation) -> Result:
    result: Result = {}
    model = _model(implementation, seq_len)
    for num_iter in SCALE_GRIDS[seq_len]:
        run = iterations(model, 1, num_iter, cfg, cfg_schedule)
        result |= {f"K={num_iter} {item}": run[item] for item in ("scales", "kinds")}
    return result


def cases() -> list[Case]:
    table: list[Case] = []

    def add(what: str, name: str, run: Any, *arguments: Any) -> None:
        table.append(Case(what, name, partial(run, *arguments)))

    for name, options in VARIANTS.items():
        add("initial weights", name, initial_weights, options)
    for batch, side in ((1, 2), (1, 16), (3, 7), (8, 8)):
        add("orders", f"{batch} of {side * side} tokens", orders, batch, side)
    for seq_len in GRIDS:
        for scale in (1.0, 2.5):
            grid = f"L={seq_len}, {len(GRIDS[seq_len])} values of K, cfg {scale}"
            add("mask lengths and masks", grid, masks, seq_len, scale)
    what = "schedules and timestep maps"
    for respacing in RESPACINGS:
        add(what, f"respacing {respacing!r}", schedule, respacing)
    for respacing in IMPOSSIBLE:
        add(what, f"impossible {respacing!r}", impossible_respacing, respacing)
    for cfg_schedule in ("linear", "constant"):
        for cfg in (1.0, 2.9, 0.5, torch.tensor([3.2])):
            for seq_len in SCALE_GRIDS:
                name = f"{cfg_schedule}, cfg {cfg}, L={seq_len}"
                add("guidance scales", name, scales, seq_len, cfg, cfg_schedule)
    return table
