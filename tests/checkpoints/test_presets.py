"""Presets: what a config.json and settings may say, and what each bad one says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marfast.checkpoints import CheckpointError, Preset, Settings, get_preset
from marfast.checkpoints.presets import LARGEST_CONFIG, read_config, read_names
from marfast.errors import ArgumentError
from marfast.generation.arguments import check_labels, plain
from tests.models import TINY


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("not json", "not a JSON file"),
        ("[1]", "config.json: [1]; allowed is an object"),
        pytest.param(f'{{"a": "{"b" * LARGEST_CONFIG}"}}', "allowed are up to", id="large"),
        pytest.param("[" * 100_000, "config.json: not a JSON file", id="very deep"),
        pytest.param('{"a":' * 500 + "1" + "}" * 500, "config.json: ", id="deep"),
        pytest.param(f'{{"a": {"9" * 5000}}}', "config.json: ", id="a number of 5000 digits"),
        ('{"architecture": {"decoder_depth": 1000000}}', "architecture.decoder_depth: 1000000; "),
        ('{"architecture": {"diffloss_w": 1000000}}', "architecture.diffloss_w: 1000000; "),
        (
            '{"architecture": {}, "settings": {"steps": true}}',
            "settings.steps: True; allowed are 2 to 1000, or a respacing",
        ),
        ('{"architecture": {}, "classes": ["a", 1]}', "config.json: classes: ['a', 1]; "),
        ("{}", "config.json: architecture: it is missing"),
        ('{"architecture": {"img_size": 0}}', "architecture.img_size: 0"),
        ('{"architecture": {"img_size": "28"}}', "architecture.img_size: '28'; allowed are whole"),
        ('{"architecture": {"image": 28}}', "architecture.image"),
        (
            '{"architecture": {"\\u001b[2J": 28}}',
            r"architecture.'\x1b[2J': 28; no such name; known are img_size, ",
        ),
        (
            '{"architecture": {"encoder_num_heads": 5}}',
            "architecture.encoder_num_heads: 5; allowed are divisors of the width, 1024",
        ),
        ('{"architecture": {}, "settings": {"cfg": -1}}', "settings.cfg: -1"),
        ('{"architecture": {}, "settings": {"num_iter": 300}}', "settings.num_iter: 300; allowed"),
        ('{"architecture": {}, "surplus": 1}', "surplus"),
        ('{"architecture": {"img_size": 8}}', "no token"),
        ('{"architecture": {"img_size": 28.0}}', "architecture.img_size: 28.0; allowed are whole"),
        ('{"architecture": {"mlp_ratio": 0}}', "mlp_ratio: 0; allowed are numbers above 0 to 1024"),
        ('{"architecture": []}', "config.json: architecture: []; allowed is an object"),
        ('{"architecture": {}, "settings": {"clip_denoised": 1}}', "1; allowed are False, True"),
        ('{"architecture": {}, "settings": {"cfg_schedule": "x"}}', "'x'; allowed are linear, con"),
        ('{"architecture": {}, "classes": "ab"}', "classes: 'ab'; allowed is a list of strings"),
    ],
)
def test_a_bad_config_is_named(config: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config)
    with pytest.raises(CheckpointError) as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_take_any_kind_of_number() -> None:
    new = Settings().replace(
        64, num_iter=np.int64(2), steps=np.int32(5), cfg=np.float32(2.5), temperature=np.int8(1)
    )
    assert new == Settings(num_iter=2, steps=5, cfg=2.5)
    assert [type(x) for x in (new.num_iter, new.steps, new.cfg)] == [int, int, float]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("steps", "-5,10", "steps: '-5,10'; allowed are 2 to 1000"),
        ("steps", "0,3", "steps: '0,3'; allowed are"),
        ("steps", "fast", "steps: 'fast'; allowed are"),
        ("steps", "ddim", "steps: 'ddim'; allowed are"),
        ("steps", "ddim7,3", "steps: 'ddim7,3'; allowed are"),
        ("steps", True, "steps: True; "),
        ("steps", "50-1", "steps: '50-1'; allowed are"),
        ("sampler", "euler", "sampler: 'euler'; allowed are ddpm, ddim, dpm++2m, dpm++2m-sde"),
        ("eta", 1.5, "eta: 1.5; "),
        ("eta", 0.5, "eta: 0.5; allowed is 0 where the sampler is 'ddpm'"),
        ("guidance_interval", (0.7, 0.1), "guidance_interval: (0.7, 0.1); allowed are two"),
        ("guidance_interval", (0.1, 0.2, 0.3), "guidance_interval: "),
        ("guidance_interval", 0.5, "guidance_interval: 0.5; "),
        ("num_iter", 2.5, "num_iter: 2.5; "),
        ("num_iter", np.float32(2.5), "num_iter: 2.5; "),
        ("temperature", 1e300, "temperature: 1e+300; "),
        ("temperature", np.float64("nan"), "temperature: nan; "),
        ("cfg", 10_001, "cfg: 10001"),
        ("cfg", 1j, "cfg: 1j; allowed are numbers from 0 to 10000"),
        pytest.param(
            "steps", 10**5000, "steps: a number of thousands of digits; ", id="steps of 5000 digits"
        ),
    ],
)
def test_a_setting_that_cannot_be_sampled_with_is_named(
    setting: str, value: Any, said: str
) -> None:
    with pytest.raises(ArgumentError) as error:
        Settings().replace(64, **{setting: value})
    assert said in str(error.value)
    assert error.value.name == setting
    with pytest.raises(ArgumentError, match=rf"^preset: settings\.{setting}: ") as error:
        get_preset(Preset(TINY, Settings(**{"num_iter": 4, setting: value})))
    assert error.value.name == "preset"


def test_a_large_config_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # more than any memory
    with pytest.raises(CheckpointError, match="allowed are up to 1048576 bytes of JSON"):
        read_config(path)


def test_respacings_are_taken_as_the_original_takes_them() -> None:
    for steps in ("50", "ddim50", "10,15,20", " 10, 15 ,20", "1,1"):
        assert Settings().replace(64, steps=steps).steps == steps


@pytest.mark.parametrize(
    ("name", "parameters"), [("mar_base", 208e6), ("mar_large", 479e6), ("mar_huge", 943e6)]
)
def test_presets_have_the_papers_size(name: str, parameters: float) -> None:
    module = get_preset(name).architecture.build()
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(parameters, rel=0.01)


def test_the_papers_classes_have_names_and_no_two_the_same() -> None:
    names = get_preset("mar_base").classes
    assert len({plain(name) for name in names}) == len(names) == 1000
    assert not any("," in name or not name.isprintable() or not name for name in names)
    known = {0: "tench", 281: "tabby", 360: "otter", 999: "toilet tissue"}
    assert {i: names[i] for i in known} == known
    labels = ["golden retriever", "Cardigan_Welsh_corgi", "cardigan", "crane bird", "crane"]
    assert check_labels(labels, 1000, names).tolist() == [207, 264, 474, 134, 517]


def test_a_list_of_names_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes("ein Häubchen\r\nzwei\n".encode())
    assert read_names(path) == ("ein Häubchen", "zwei")
    for data, said in ((b"\xff", "names: not a text"), (b"a\n" * LARGEST_CONFIG, "up to 1048576")):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=said):
            read_names(path)
