"""KL-16 through the ops: close to the reference, in bounded memory; and its files."""

import copy
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import marfast
from marfast.checkpoints import CheckpointError
from marfast.model import KLTokenizer, autoencoder, load_tokenizer
from marfast.ops import choice
from marfast.reference import AutoencoderKL
from marfast.verifying.case import numbers
from tests.helpers import assert_as_accurate
from tests.models import tiny_autoencoder

FIVE_LEVELS = (1, 1, 1, 2, 2)  # the fifth has attention in the encoder


def plain(module: AutoencoderKL, method: Callable[[AutoencoderKL, Tensor], Tensor]) -> Any:
    """The reference's own, in the dtype of what it is given."""
    in_double = copy.deepcopy(module).double()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return method(in_double if x.dtype == torch.float64 else module, x)

    return run


@pytest.mark.parametrize("ch_mult", [(1,), (1, 2), FIVE_LEVELS], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_decode_is_as_accurate_as_the_reference(
    ch_mult: tuple[int, ...], layout: torch.memory_format
) -> None:
    module = tiny_autoencoder(4, ch_mult)
    tokenizer = KLTokenizer(copy.deepcopy(module).to(memory_format=layout))  # type: ignore[call-overload]
    latents = [(numbers(2, 4, 3, 5, seed=seed),) for seed in range(3)]
    for (z,) in latents:
        images = tokenizer.decode(z)
        side = 2 ** (len(ch_mult) - 1)
        assert images.shape == (2, 3, 3 * side, 5 * side)
        assert images.dtype == torch.float32
    reference = plain(module, lambda m, z: m.decode(z / 0.2325))
    assert_as_accurate(tokenizer.decode, reference, latents)


@pytest.mark.parametrize("ch_mult", [(1,), (1, 2), FIVE_LEVELS], ids=str)
def test_encode_is_as_accurate_as_the_reference(ch_mult: tuple[int, ...]) -> None:
    module = tiny_autoencoder(4, ch_mult)
    tokenizer = KLTokenizer(module)
    shape = (2, 3, 2 * tokenizer.stride, 3 * tokenizer.stride)
    images = [(numbers(*shape, seed=seed),) for seed in range(3)]
    assert tokenizer.encode(*images[0]).shape == (2, 4, 2, 3)
    reference = plain(module, lambda m, x: m.encode(x).mode() * 0.2325)
    assert_as_accurate(tokenizer.encode, reference, images)


def test_the_kernel_runs(needs_native: None) -> None:
    with choice.used() as used:
        KLTokenizer(tiny_autoencoder()).decode(numbers(1, 4, 3, 3))
    assert used == {"group_norm_silu": {"cpu"}}


@pytest.mark.parametrize("forced", ["cuda", "torch"])
def test_a_forced_backend_without_such_a_kernel_decodes(forced: str) -> None:
    tokens = numbers(1, 4, 3, 3)
    with marfast.backend(forced), choice.used() as used:
        image = KLTokenizer(tiny_autoencoder()).decode(tokens)
    assert used == {"group_norm_silu": {"torch"}}
    assert image.isfinite().all()


def test_the_module_is_left_as_it_was() -> None:
    module = tiny_autoencoder()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    tokenizer = KLTokenizer(module)
    latents, images = numbers(2, 4, 3, 3), numbers(2, 3, 6, 6)
    kept = latents.clone(), images.clone()
    tokenizer.decode(latents)
    tokenizer.encode(images)
    assert torch.equal(latents, kept[0])
    assert torch.equal(images, kept[1])
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.is_contiguous()


def test_no_chunk_is_larger_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KLTokenizer(tiny_autoencoder())
    latents = numbers(7, 4, 3, 3)
    whole = tokenizer.decode(latents)
    sizes: list[int] = []
    tokenizer.module.decoder.conv_in.register_forward_hook(lambda *a: sizes.append(len(a[2])))
    image = autoencoder.ACTIVATIONS * 32 * 6 * 6 * 4
    for memory, expected in ((3 * image, [3, 3, 1]), (image // 2, [1] * 7), (99 * image, [7])):
        monkeypatch.setattr(autoencoder, "CHUNK_MEMORY", memory)
        sizes.clear()
        torch.testing.assert_close(tokenizer.decode(latents), whole)
        assert sizes == expected


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were made inside and alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            storage = result.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return result

    def freed(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


def peak_of(run: Callable[[], object]) -> int:
    with torch.no_grad(), Peak() as peak:
        run()
    return peak.most


def test_a_whole_batch_needs_the_memory_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is less than the reference's: three of the largest activations, not four."""
    tokenizer = KLTokenizer(tiny_autoencoder(4, (1, 1)))
    latents = numbers(8, 4, 32, 32)
    activation, images = 32 * 64 * 64 * 4, 8 * 3 * 64 * 64 * 4
    monkeypatch.setattr(autoencoder, "CHUNK_MEMORY", 1)
    assert peak_of(lambda: tokenizer.decode(latents)) <= 3.2 * activation + images + latents.nbytes
    assert peak_of(lambda: tokenizer.module.decode(latents[:1])) >= 4 * activation


def test_autocast_changes_nothing() -> None:
    tokenizer = KLTokenizer(tiny_autoencoder())
    latents = numbers(1, 4, 3, 3)
    expected = tokenizer.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.decode(latents), expected)


def test_half_precision_weights_compute_in_half_precision() -> None:
    module, latents = tiny_autoencoder(), numbers(1, 4, 3, 3)
    expected = KLTokenizer(module).decode(latents)
    images = KLTokenizer(copy.deepcopy(module).bfloat16()).decode(latents)
    assert images.dtype == torch.float32
    assert 0 < (images - expected).abs().max() < 0.1 * expected.abs().max()


def test_an_empty_batch_is_no_work() -> None:
    assert KLTokenizer(tiny_autoencoder()).decode(torch.zeros(0, 4, 3, 3)).shape == (0, 3, 6, 6)


@pytest.mark.parametrize(
    ("method", "shape", "said"),
    [
        ("decode", (1, 3, 2, 2), r"latents has shape \[1, 3, 2, 2\]; it must be \[B, 4, H, W\]"),
        ("decode", (4, 2, 2), r"latents has shape \[4, 2, 2\]"),
        ("encode", (1, 1, 4, 4), r"images has shape \[1, 1, 4, 4\]; it must be \[B, 3, H, W\]"),
        ("encode", (1, 3, 4, 5), "images has sides 4 and 5; multiples of 2 are allowed"),
    ],
)
def test_a_wrong_shape_is_named(method: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        getattr(KLTokenizer(tiny_autoencoder()), method)(torch.zeros(shape))


def test_a_module_of_another_kind_is_named() -> None:
    module = tiny_autoencoder()
    module.decoder.up[0].attn.append(torch.nn.GroupNorm(32, 32))
    said = "AutoencoderKL is no AutoencoderKL: it has decoder.up.0.attn.0.bias"
    with pytest.raises(TypeError, match=said):
        KLTokenizer(module)
    said = "Linear is no AutoencoderKL: encoder.conv_in.weight is missing or of another shape"
    with pytest.raises(TypeError, match=said):
        KLTokenizer(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", ["ckpt", "pth", "safetensors"])
def test_every_kind_of_file_gives_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    module = tiny_autoencoder(5, (1, 1, 2))
    path = tmp_path / f"vae.{kind}"
    if kind == "ckpt":
        torch.save({"model": module.state_dict()}, path)  # as kl16.ckpt
    elif kind == "pth":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    tokenizer = load_tokenizer(path)
    assert (tokenizer.stride, tokenizer.channels, tokenizer.scale) == (4, 5, 0.2325)
    latents = numbers(1, 5, 2, 2)
    torch.testing.assert_close(tokenizer.decode(latents), KLTokenizer(module).decode(latents))
    assert not any(p.requires_grad for p in tokenizer.module.parameters())


def test_what_the_original_ignores_is_ignored(tmp_path: Path) -> None:
    weights = tiny_autoencoder().state_dict()
    other = {name: value + 1 for name, value in weights.items()}
    more = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.tensor(0)}
    torch.save({"model": weights | more, "model_ema": other, "epoch": 3}, tmp_path / "a.ckpt")
    for name, value in load_tokenizer(tmp_path / "a.ckpt").module.state_dict().items():
        assert torch.equal(value, weights[name]), name


def rename(weights: dict[str, Tensor]) -> None:
    weights["decoder.conv_out.w"] = weights.pop("decoder.conv_out.weight")


def attend(weights: dict[str, Tensor]) -> None:
    weights["decoder.up.0.attn.0.norm.weight"] = torch.ones(32)


def widen(weights: dict[str, Tensor]) -> None:
    weights["encoder.conv_in.weight"] = torch.zeros(33, 3, 3, 3)


def flatten(weights: dict[str, Tensor]) -> None:
    weights["post_quant_conv.weight"] = torch.zeros(())


def empty(weights: dict[str, Tensor]) -> None:
    weights.clear()
    weights["a"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (rename, "misses decoder.conv_out.weight"),
        (attend, "has decoder.up.0.attn.0.norm.weight, which this model has not"),
        (widen, "misses "),
        (flatten, "has shape"),
        (empty, "misses decoder.conv_in.bias"),
    ],
)
def test_a_file_that_does_not_fit_is_named(damage: Any, said: str, tmp_path: Path) -> None:
    weights = dict(tiny_autoencoder().state_dict())
    damage(weights)
    path = tmp_path / "vae.ckpt"
    torch.save({"model": weights}, path)
    with pytest.raises(CheckpointError) as error:
        load_tokenizer(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_kl16_is_the_default() -> None:
    with torch.device("meta"):
        module = AutoencoderKL()
    assert sum(p.numel() for p in module.parameters()) == 66_456_019
    assert module.stride == 16
    attention = [name for name in module.state_dict() if "attn" in name and name.endswith("q.bias")]
    assert attention == [
        *(f"encoder.down.4.attn.{i}.q.bias" for i in range(2)),
        *("encoder.mid.attn_1.q.bias", "decoder.mid.attn_1.q.bias"),
    ]
