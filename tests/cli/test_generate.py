"""`marfast generate`: which pixels go where, what is replaced, what an interruption leaves."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import Preset, Settings
from marfast.cli import output
from marfast.generation import Pipeline
from marfast.pixels import to_pixels
from tests.cli.program import files, generate, invoke, start
from tests.limits import HANG
from tests.models import LATENT, tiny_autoencoder, tiny_weights

SIDE = 28


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expected(labels: list[int | None], seed: int = 0, **settings: Any) -> np.ndarray:
    """What the library makes: uint8 [B, 28, 28]."""
    settings = {"num_iter": 2, "steps": 4} | settings
    made = marfast.load("fashion-mnist").generate(labels, seed=seed, **settings)
    return np.asarray(((made[:, 0].double() + 1) * 127.5).round(), dtype=np.uint8)


def cut(sheet: np.ndarray, rows: int, columns: int, scale: int) -> np.ndarray:
    """The images of a grid, checked to be squares of one value each and lined in white."""
    pitch = SIDE + 1
    small = sheet[::scale, ::scale]
    assert small.shape == (rows * pitch + 1, columns * pitch + 1)
    assert np.array_equal(sheet, small.repeat(scale, 0).repeat(scale, 1))
    assert (small[::pitch] == 255).all()
    assert (small[:, ::pitch] == 255).all()
    tiles = small[1:, 1:].reshape(rows, pitch, columns, pitch)[:, :SIDE, :, :SIDE]
    return tiles.swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def read(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_grid_has_a_row_for_each_label() -> None:
    assert generate("--labels=0-2,bag", "--per-label=5", "--out=grid.png").exit_code == 0
    made = cut(read("grid.png"), rows=4, columns=5, scale=4)
    assert np.array_equal(made, expected([label for label in (0, 1, 2, 8) for _ in range(5)]))


def test_half_precision_makes_nearly_the_same_images() -> None:
    given = ("--labels=0-2", "--num-iter=2", "--steps=4")
    assert generate(*given, "--out=a.png").exit_code == 0
    assert generate(*given, "--out=b.png", "--dtype=bfloat16").exit_code == 0
    first, second = (read(name).astype(float) for name in ("a.png", "b.png"))
    assert 0 < np.abs(first - second).mean() < 8


def test_a_tokenizer_makes_images_in_colour() -> None:
    preset = Preset(LATENT, Settings(num_iter=2, steps=4))
    Path("latent.json").write_text(json.dumps(preset.to_dict()))
    save_file(tiny_weights(LATENT), "latent.safetensors")
    torch.save({"model": tiny_autoencoder().state_dict()}, "vae.ckpt")
    given = ("--model=latent.safetensors", "--preset=latent.json", "--vae=vae.ckpt")
    assert generate("--labels=3,none", "--seed=5", "--out=sheet.png", *given).exit_code == 0
    assert generate("--labels=3,none", "--seed=5", "--out=single/", *given).exit_code == 0
    model = marfast.load("latent.safetensors", preset, vae="vae.ckpt")
    made = to_pixels(model.generate([3, None], seed=5))
    assert made.shape == (2, 8, 8, 3)
    singles = [read(path) for path in sorted(Path("single").glob("*.png"))]
    assert np.array_equal(np.stack(singles), made)
    scale = 14  # 112 pixels a side
    sheet = read("sheet.png")[::scale, ::scale]
    assert np.array_equal(np.stack([sheet[1:9, 1:9], sheet[1:9, 10:18]]), made)


@pytest.mark.parametrize(
    ("arguments", "rows", "columns"),
    [
        (["--labels=0-9"], 3, 4),
        (["--labels=7", "--per-label=5"], 2, 3),
    ],
)
def test_other_grids_are_near_square(arguments: list[str], rows: int, columns: int) -> None:
    assert generate(*arguments, "--out=grid.png", "--scale=1").exit_code == 0
    labels: list[int | None] = list(range(10)) if "--labels=0-9" in arguments else [7] * 5
    made = cut(read("grid.png"), rows, columns, scale=1)
    assert np.array_equal(made[: len(labels)], expected(labels))
    assert (made[len(labels) :] == 255).all()


def test_one_image_is_as_it_is() -> None:
    generate("--labels=7", "--out=one.png")
    assert np.array_equal(read("one.png"), expected([7])[0])
    generate("--labels=7", "--out=grid.png", "--columns=1", "--scale=2")
    assert np.array_equal(cut(read("grid.png"), 1, 1, scale=2), expected([7]))


def test_a_folder_has_a_file_for_each_image() -> None:
    result = generate("--labels=sneaker,Ankle Boot,none", "--per-label=2", "--seed=5", "--out=a/b/")
    assert result.exit_code == 0
    names = ["sneaker", "sneaker", "ankle-boot", "ankle-boot", "none", "none"]
    paths = sorted(Path("a/b").glob("*.png"))
    assert [p.name for p in paths] == [f"{i:04}_{n}_seed5.png" for i, n in enumerate(names)]
    made = np.stack([read(path) for path in paths])
    assert np.array_equal(made, expected([7, 7, 9, 9, None, None], seed=5))


def test_single_files_can_be_enlarged() -> None:
    generate("--labels=3", "--out=small/")
    generate("--labels=3", "--out=large/", "--scale=3")
    [name] = [path.name for path in Path("small").glob("*.png")]
    small, large = read(f"small/{name}"), read(f"large/{name}")
    assert np.array_equal(large, small.repeat(3, 0).repeat(3, 1))


def test_every_setting_reaches_the_model() -> None:
    settings = {"num_iter": 3, "steps": "ddim5", "cfg": 3.5, "temperature": 0.9}
    result = invoke(
        *("generate", "--labels=3,4", "--seed=9", "--num-iter=3", "--steps=ddim5", "--cfg=3.5"),
        *("--cfg-schedule=constant", "--temperature=0.9", "--part=2", "--threads=1", "--out=new/"),
    )
    assert result.exit_code == 0
    made = np.stack([read(path) for path in sorted(Path("new").glob("*.png"))])
    threads = torch.get_num_threads()
    try:
        wanted = expected([3, 4], seed=9, cfg_schedule="constant", **settings)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(made, wanted)


def test_a_sampler_reaches_the_model() -> None:
    options = ("--sampler=ddim", "--eta=0.5", "--guidance-interval=0.1,0.7", "--steps=4-2")
    generate("--labels=3,4", "--seed=9", "--num-iter=3", *options, "--out=new/")
    made = np.stack([read(path) for path in sorted(Path("new").glob("*.png"))])
    sampling = {"sampler": "ddim", "eta": 0.5, "guidance_interval": (0.1, 0.7), "steps": "4-2"}
    assert np.array_equal(made, expected([3, 4], seed=9, num_iter=3, **sampling))


def test_a_file_of_ones_own_with_its_config() -> None:
    folder = Path(marfast.__file__).parent / "assets" / "fashion-mnist"
    weights, config = folder / "model.safetensors", folder / "config.json"
    generate("--labels=3", "--out=a.png")
    result = generate("--labels=3", "--out=b.png", f"--model={weights}", f"--preset={config}")
    assert result.exit_code == 0
    generate("--labels=3", "--out=c.png", f"--model={folder}")
    for other in ("b.png", "c.png"):
        assert np.array_equal(read("a.png"), read(other))


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("PNG", "PNG")])
def test_the_suffix_chooses_the_format(suffix: str, kind: str) -> None:
    assert generate("--labels=3", f"--out=deep/er/new.{suffix}").exit_code == 0
    with Image.open(f"deep/er/new.{suffix}") as image:
        assert image.format == kind
        assert image.size == (SIDE, SIDE)
    assert os.listdir("deep/er") == [f"new.{suffix}"]


def test_force_replaces_a_file() -> None:
    Path("there.png").write_bytes(b"precious")
    assert generate("--labels=3", "--out=there.png").exit_code == 2
    assert Path("there.png").read_bytes() == b"precious"
    assert generate("--labels=3", "--out=there.png", "--force").exit_code == 0
    assert read("there.png").shape == (SIDE, SIDE)


def test_force_replaces_its_own_files_in_a_folder_and_no_others() -> None:
    Path("new").mkdir()
    Path("new/notes.txt").write_text("mine")
    assert generate("--labels=3,4", "--out=new").exit_code == 0
    before = files(Path("new"))
    Path("new/0001_coat_seed0.png").unlink()
    assert generate("--labels=3,4", "--out=new").exit_code == 2
    assert generate("--labels=3,4", "--out=new", "--seed=1").exit_code == 0
    assert generate("--labels=3,4", "--out=new", "--force").exit_code == 0
    after = files(Path("new"))
    runs = json.loads(before.pop("settings.json"))["runs"]
    assert before.items() <= after.items()
    assert len(after) == 6
    seeds = [run["seed"] for run in json.loads(after["settings.json"])["runs"]]
    assert ([run["seed"] for run in runs], seeds) == ([0], [0, 1])


def test_a_link_is_followed_and_stays() -> None:
    Path("target.png").write_bytes(b"old")
    Path("link.png").symlink_to("target.png")
    assert generate("--labels=3", "--out=link.png").exit_code == 2
    assert generate("--labels=3", "--out=link.png", "--force").exit_code == 0
    assert Path("link.png").is_symlink()
    assert read("target.png").shape == (SIDE, SIDE)


def test_what_is_printed() -> None:
    result = generate("--labels=3,4", "--out=new.png")
    assert result.stderr == ""
    count, elapsed, backends, file = result.stdout.splitlines()
    assert count.split() == ["images", "2"]
    assert elapsed.startswith("time ")
    assert elapsed.endswith(" images/s)")
    assert backends.startswith("backends ")
    assert file.split() == ["file", str(Path("new.png").resolve())]


@pytest.mark.parametrize("out", ["new.png", "new"])
def test_json(out: str) -> None:
    with marfast.backend("reference"):
        result = generate("--labels=3,4", f"--out={out}", "--json")
    found = json.loads(result.stdout)
    assert found["images"] == 2
    assert found["images_per_second"] == pytest.approx(2 / found["seconds"], rel=0.1)
    assert found["out"] == str(Path(out).resolve())
    assert found["backends"]
    assert set(map(tuple, found["backends"].values())) == {("reference",)}


def interrupted(after: int) -> Any:
    """`Pipeline.generate_parts`, interrupted after so many parts."""
    original = Pipeline.generate_parts

    def generate_parts(self: Pipeline, *args: Any, **kwargs: Any) -> Iterator[torch.Tensor]:
        for done, part in enumerate(original(self, *args, **kwargs)):
            if done == after:
                raise KeyboardInterrupt
            yield part

    return generate_parts


def test_an_interrupted_folder_keeps_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = expected(list(range(10)), part=3)
    monkeypatch.setattr(Pipeline, "generate_parts", interrupted(after=2))
    result = generate("--labels=0-9", "--part=3", "--out=new/")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "6 of 10 images are in" in result.stderr
    assert "the same command with --resume makes the others" in result.stderr
    assert len([*Path("new").glob("*.png")]) == 6
    made = np.stack([read(path) for path in sorted(Path("new").glob("*.png"))])
    assert np.array_equal(made, whole[:6])


def test_an_interrupted_folder_can_be_resumed() -> None:
    whole = expected(list(range(10)), part=3)
    assert generate("--labels=0-9", "--part=3", "--out=new/").exit_code == 0
    kept, *lost = sorted(Path("new").glob("*.png"))[5:]
    for path in lost:
        path.unlink()
    before = kept.stat().st_mtime_ns
    assert generate("--labels=0-9", "--part=3", "--out=new/").exit_code == 2
    result = generate("--labels=0-9", "--part=3", "--out=new/", "--resume", "--json")
    assert json.loads(result.stdout)["images"] == 4
    assert kept.stat().st_mtime_ns == before
    made = np.stack([read(path) for path in sorted(Path("new").glob("*.png"))])
    assert np.array_equal(made, whole)
    again = generate("--labels=0-9", "--part=3", "--out=new/", "--resume", "--json")
    assert json.loads(again.stdout)["images"] == 0


def test_one_file_cannot_be_resumed() -> None:
    result = generate("--labels=3", "--out=new.png", "--resume")
    assert result.exit_code == 2
    assert "--resume" in result.stderr
    assert files(Path()) == {}


def test_an_interrupted_grid_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "generate_parts", interrupted(after=1))
    result = generate("--labels=0-9", "--part=3", "--out=sub/new.png")
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert files(Path()) == {}


@pytest.mark.parametrize("moment", ["save", "replace"])
def test_an_interruption_while_writing_leaves_the_old_file(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    Path("there.png").write_bytes(b"precious")
    target = (os, "replace") if moment == "replace" else (Image.Image, "save")
    monkeypatch.setattr(*target, interrupt)
    assert generate("--labels=3", "--out=there.png", "--force").exit_code == 130
    assert files(Path()) == {"there.png": b"precious"}


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write = output.write_image

    def write_until_full(pixels: Any, path: Path, *rest: Any, **options: Any) -> None:
        if path.name.startswith("0002"):
            raise OSError(28, "No space left on device")
        write(pixels, path, *rest, **options)

    monkeypatch.setattr(output, "write_image", write_until_full)
    result = generate("--labels=0-9", "--out=new/")
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert "No space left on device" in line
    assert "2 of 10 images" in line
    assert len([*Path("new").glob("*.png")]) == 2


def test_too_little_memory_tells_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    write = output.write_image

    def write_until_full(pixels: Any, path: Path, *rest: Any, **options: Any) -> None:
        if path.name.startswith("0002"):
            raise MemoryError
        write(pixels, path, *rest, **options)

    monkeypatch.setattr(output, "write_image", write_until_full)
    result = generate("--labels=0-9", "--out=new/")
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert "out of memory" in line
    assert "2 of 10 images" in line


def test_an_image_that_appears_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    write = output.write_image

    def write_late(pixels: Any, path: Path, *rest: Any, **options: Any) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"precious")
        write(pixels, path, *rest, **options)

    monkeypatch.setattr(output, "write_image", write_late)
    for out in ("new.png", "new/"):
        result = generate("--labels=3", f"--out={out}")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "File exists" in result.stderr
    found = files(Path())
    assert found.pop("new/settings.json")
    assert {*found.values()} == {b"precious"}


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_is_no_file_is_not_replaced(force: tuple[str, ...]) -> None:
    os.mkfifo("pipe.png")
    Path("new").mkdir()
    Path("new/0000_dress_seed0.png").mkdir()
    Path("dangling.png").symlink_to("nowhere/deep.png")
    for out in ("pipe.png", "new/"):
        result = generate("--labels=3", f"--out={out}", *force)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "is there and no plain file" in result.stderr


def test_ctrl_c_leaves_whole_files(tmp_path: Path) -> None:
    out = tmp_path / "new"
    arguments = ("--labels=0-9", "--per-label=100", "--num-iter=2", "--steps=10", "--part=1")
    process = start("generate", *arguments, "--out=new/", cwd=tmp_path)
    try:
        deadline = time.monotonic() + HANG
        while len([*out.glob("*_seed0.png")]) <= 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=HANG)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stdout == ""
    [line] = stderr.splitlines()
    names = [path.name for path in out.glob("*.png")]
    assert f"interrupted: {len(names)} of 1000 images are in {out.resolve()}" in line
    assert 3 < len(names) < 1000
    for name in names:
        assert name.endswith("_seed0.png")
        assert read(out / name).shape == (SIDE, SIDE)
