"""What `marfast bench` measures: checked first, then row by row."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from marfast import startup
from marfast.bench import heads, images, measure, plots
from marfast.bench.head_rows import head_floors, measure_head
from marfast.bench.image_rows import (
    ImageWorkload,
    image_floors,
    measure_images,
    varied_settings,
)
from marfast.bench.named_heads import NAMED
from marfast.bench.results import Row, commit, machine, write_rows
from marfast.checkpoints import Architecture, Preset, Settings, find, get_preset
from marfast.cli.bench import OF_THE_PAPER
from marfast.cli.bench_tables import print_rows, warn_if_busy
from marfast.cli.console import echo, print_json, progress_bar
from marfast.cli.errors import Failed, bad, one_line, reported_as
from marfast.cli.target import check_folder
from marfast.files import sweep
from marfast.generation.load import find_tokenizer, load
from marfast.model import KLTokenizer
from marfast.reference import AutoencoderKL
from marfast.verifying import original as checkouts
from marfast.verifying.runner import load_original, patch_process

SIZES = {"b": "mar_base", "l": "mar_large", "h": "mar_huge"}


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    workloads: list[str]
    preset: str | None
    rows: list[int]
    batch: list[int | None]
    num_iter: list[int | None]
    steps: int | None
    timed: int
    vae: str | None = None


@dataclass(frozen=True)
class Output:
    """Where rows go."""

    file: Path | None
    pictures: Path | None
    force: bool
    as_json: bool


def how(
    rounds: int, device: str, with_compile: bool, original: str | None, attempts: int
) -> measure.Options:
    """How it is measured, with the code of a checkout of LTH14/mar if there is one."""
    implementation = None
    if original is not None:
        with reported_as("--original"):
            checkout = checkouts.require_checkout(original)
            checkouts.require_packages()
        patch_process()
        implementation = load_original(checkout)
    return measure.Options(rounds, device, with_compile, implementation, attempts=attempts)


def run(asked: Asked, how: measure.Options, output: Output) -> int:
    """Measure, print and write; the exit status."""
    if output.file is not None:
        sweep(output.file.parent)
    found: list[Row] = []
    status = 0
    try:
        with one_line(), progress_bar("measuring", lines=True) as report:
            cases = sum(count_of(name, asked) for name in asked.workloads)
            done = 0
            how = replace(how, report=lambda what: report(what, done, cases))
            for name in asked.workloads:
                for new in measured(name, asked, how):
                    done, force = done + 1, output.force or bool(found)
                    found += new
                    if output.file is not None:
                        write_rows(output.file, found, force=force, commit=commit())
                    if not output.as_json:
                        print_rows(new)
    except KeyboardInterrupt:
        status = startup.INTERRUPTED
        echo("interrupted" + ": what was printed stays" * bool(found), err=True)
    except measure.WrongResult as error:
        status = 1
        echo(f"error: {error}", err=True)
    except Failed as error:
        status = error.exit_code
        echo(f"error: {error}", err=True)
    if output.as_json:
        print_json(found)
    warn_if_busy(found)
    if output.pictures is not None:
        with reported_as("--plot"):
            plots.plot(found, output.pictures, machine=machine(), force=output.force)
    return status


def check_pictures(plot: str, asked: Asked, force: bool) -> Path:
    """The folder for them, if they can be drawn and written."""
    try:
        plots.require()
    except ImportError as error:
        raise bad("--plot", str(error)) from None
    stems = [file for name in asked.workloads for file in plots.file_names(name).values()]
    names = [f"{stem}.{kind}" for stem in stems for kind in plots.FORMATS]
    return check_folder("--plot", plot, names, force)


def check_workload(name: str, asked: Asked) -> None:
    """Errors for what can't be measured, before anything is: weights in files are read."""
    if name.startswith("head "):
        return
    if paper := OF_THE_PAPER.fullmatch(name):
        known = get_preset(SIZES[paper[2]])
        if paper[1] == "head":
            known = Preset(known.architecture, Settings(num_iter=1, steps=25))
    else:
        with reported_as("WORKLOAD", model="WORKLOAD"):
            checkpoint = find(name, asked.preset)
            known = checkpoint.preset
            checkpoint.file.check(known.architecture.build())
    counts = [None] if paper and paper[1] == "head" else asked.num_iter
    for count in counts:
        with reported_as("WORKLOAD"):
            varied_settings(known.settings, known.architecture, count, asked.steps)
    if asked.vae is not None and not (paper and paper[1] == "head"):
        _tokenizer(asked.vae, known.architecture)


def count_of(name: str, asked: Asked) -> int:
    """Cases of a workload."""
    paper = OF_THE_PAPER.fullmatch(name)
    is_head = name.startswith("head ") or (paper and paper[1] == "head")
    return len(asked.rows) if is_head else len(asked.num_iter) * len(asked.batch)


def measured(name: str, asked: Asked, how: measure.Options) -> Iterator[list[Row]]:
    """Rows of one workload, as they come."""
    head, _, spec = name.partition(" ")
    if head == "head" and spec:
        named = heads.make_named_head(spec, how.device)
        limits = head_floors(named, how.device)
        for rows in asked.rows:
            steps = asked.steps or NAMED[spec].steps
            yield measure_head(name, named, rows, steps, how, limits, spec)
        return
    kind, _, size = name.partition("-")
    if kind == "head":
        net = heads.make_head(SIZES[size], how.device)
        how.report(f"{name}: limits of this machine")
        limits = head_floors(net, how.device)
        for rows in asked.rows:
            yield measure_head(name, net, rows, asked.steps or 25, how, limits)
        return
    workload = _image_workload(name, asked)
    workload.module.to(how.device)
    if workload.tokenizer is not None:
        workload.tokenizer.module.to(how.device)
    how.report(f"{name}: limits of this machine")
    limits = image_floors(workload.module, how.device)
    for count, batch in itertools.product(asked.num_iter, asked.batch):
        with reported_as("--num-iter"):
            varied = workload.varied(batch, num_iter=count, steps=asked.steps)
        yield measure_images(varied, how, limits)


def _image_workload(name: str, asked: Asked) -> ImageWorkload:
    """A model of the paper with random weights, or one in a file, and what it is meant for."""
    kind, _, size = name.partition("-")
    if kind in ("image", "throughput") and size in SIZES:
        known = get_preset(SIZES[size])
        module = images.random_module(SIZES[size], asked.steps or int(known.settings.steps))
        architecture, settings = known.architecture, known.settings
    else:
        with reported_as("WORKLOAD", model="WORKLOAD"):
            pipeline = load(name, asked.preset)
        assert pipeline.report is not None
        architecture = Architecture(**dict(pipeline.report.architecture))  # type: ignore[arg-type]
        module, settings = pipeline.model.module, pipeline.settings
    batch = 64 if kind == "throughput" else 1
    tokenizer = None if asked.vae is None else _tokenizer(asked.vae, architecture)
    return ImageWorkload(name, module, architecture, settings, batch, asked.timed, tokenizer)


@functools.cache
def _tokenizer(vae: str, architecture: Architecture) -> KLTokenizer:
    """The one in a file, or one of KL-16's sizes with random weights."""
    with reported_as("--vae"):
        random = vae == "random"
        made = KLTokenizer(AutoencoderKL().eval().requires_grad_(False)) if random else vae
        found = find_tokenizer(made, architecture)
    assert isinstance(found, KLTokenizer)
    found.module.to(memory_format=torch.channels_last)
    return found
