"""The reference runs where its parameters are, and draws where the original draws.

The meta device stands in for a GPU: an operation that mixes it with the CPU raises.
"""

from pathlib import Path

import pytest
import torch

import marfast.reference
from marfast.reference import MAR, AutoencoderKL, DiffLoss, create_diffusion
from marfast.verifying.case import reference
from marfast.verifying.cases.models import TINY, tiny


def test_no_device_is_named() -> None:
    for file in Path(marfast.reference.__file__).parent.glob("*.py"):
        assert ".cuda" not in file.read_text(encoding="utf-8")


def test_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.empty(2, 3, device="meta") + torch.zeros(2, 3)


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_the_head_stays_on_its_device(cfg: float) -> None:
    loss = DiffLoss(4, 12, depth=2, width=20, num_sampling_steps="3").to("meta")
    z = torch.empty(6, 12, device="meta")
    sample = loss.sample(z, 0.9, cfg)
    assert sample.is_meta
    assert loss(sample, z).is_meta


def test_the_transformer_stays_on_its_device() -> None:
    model = MAR(**TINY).to("meta")
    x = torch.empty(2, 20, 48, device="meta")
    assert model.encoder_blocks[0](x).is_meta
    orders = model.sample_orders(2)
    assert orders.is_meta
    assert model.random_masking(x, orders).is_meta
    t = torch.zeros(2, dtype=torch.long, device="meta")
    assert create_diffusion("5").q_sample(x[:, 0], t, x[:, 1]).is_meta


def test_the_autoencoder_stays_on_its_device() -> None:
    model = AutoencoderKL(4, (1, 2), ch=32).to("meta")
    posterior = model.encode(torch.empty(2, 3, 6, 6, device="meta"))
    assert posterior.mode().is_meta
    assert posterior.sample().is_meta
    assert model.decode(posterior.mode()).shape == (2, 3, 6, 6)


def test_the_first_noise_is_the_cpu_s() -> None:
    loss = DiffLoss(4, 12, depth=1, width=20, num_sampling_steps="3")
    before = torch.get_rng_state()
    loss.to("meta").sample(torch.empty(6, 12, device="meta"), 1.0, 2.0)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.randn(3, 4)
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.gpu
def test_a_gpu_gives_what_a_cpu_gives_without_noise() -> None:
    """At temperature 0 no draw of the device counts: the images are the CPU's up to rounding."""
    images = []
    for device in ("cpu", "cuda"):
        model = tiny(reference(), clip_denoised=True).to(device)
        torch.manual_seed(0)
        images.append(model.sample_tokens(2, num_iter=4, cfg=2.0, temperature=0.0).cpu())
    torch.testing.assert_close(*images, atol=1e-4, rtol=1e-4)
