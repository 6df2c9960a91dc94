"""What a session on a GPU does, in order: first what is right, then times, sanitizers last."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

Need = Callable[[], str]
"""What is missing for a step; empty if it is there."""


def device() -> str:
    return "" if torch.cuda.is_available() else "a CUDA device"


def program(name: str) -> Need:
    return lambda: "" if shutil.which(name) else name


def package(name: str) -> Need:
    return lambda: "" if importlib.util.find_spec(name) else f"the package {name}"


@dataclass(frozen=True)
class Step:
    """A command, what it needs, and how long it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float
    needs: tuple[Need, ...] = (device,)
    environment: dict[str, str] = field(default_factory=dict)
    resumes: bool = False  # started again, it goes on after the row that its process died of

    def missing(self) -> str:
        return next((lacking for need in self.needs if (lacking := need())), "")


TESTS = (
    "tests/gpu/test_ddpm_sample.py",
    "tests/triton/test_gpu.py",
    "tests/reference/test_devices.py",
)
ALL = ("tests/gpu", *TESTS[1:])
"""Whose imports are those of all that a session runs."""


def steps(out: Path, python: str = sys.executable) -> list[Step]:
    """A step may need what an earlier one built; results go to the folder `out`."""

    def module(name: str, *options: str) -> tuple[str, ...]:
        return (python, "-m", name, *options)

    def rows(name: str, file: str, *options: str) -> tuple[str, ...]:
        return module(f"tests.gpu.{name}", f"--out={out / file}", *options)

    def head(size: str, seconds: float) -> Step:
        command = rows("head_times", "head.json", f"--head={size}")
        return Step(f"head {size}", command, seconds, resumes=True)

    def images(size: str, seconds: float) -> Step:
        command = rows("image_times", "images.json", f"--preset=mar_{size}")
        return Step(f"images {size}", command, seconds, resumes=True)

    def pytest(*options: str) -> tuple[str, ...]:
        return module("pytest", "-p", "no:cacheprovider", *options)

    def sanitizer(tool: str) -> Step:
        checked = module("tests.gpu.known_answers", "--here", "--backends=cuda", "--small")
        command = ("compute-sanitizer", f"--tool={tool}", "--error-exitcode=9", *checked)
        return Step(f"sanitizer {tool}", command, 60, (device, program("compute-sanitizer")))

    bench = module("marfast", "bench", "head-b", "--device=cuda", "--rows=2,32,512", "--compile")
    launch = module("tests.gpu.one_launch")
    counters = ("ncu", "--clock-control=none", "--set=full", "--kernel-name=regex:ddpm_sample")
    return [
        Step("imports", pytest("-q", "--collect-only", *ALL), 60, ()),
        Step(
            "build",
            (python, "setup.py", "build_ext", "--inplace"),
            150,
            (device, program("nvcc"), package("pybind11"), package("setuptools")),
            {"MARFAST_BUILD_NATIVE": "1", "MARFAST_BUILD_CUDA": "1"} | architecture(),
        ),
        Step("answers", rows("known_answers", "answers.json"), 120),
        Step("tests", pytest("-v", "-m", "gpu", *TESTS), 120),
        head("base", 120),
        images("base", 120),
        head("large", 60),
        head("huge", 60),
        images("large", 90),
        images("huge", 120),
        Step("counters", (*counters, "--launch-count=1", *launch), 60, (device, program("ncu"))),
        *map(sanitizer, ("memcheck", "racecheck", "synccheck")),
        Step(
            "compile",
            (*bench, "--force", f"--out={out / 'bench.json'}"),
            150,
            (device, package("typer"), package("rich")),
        ),
        Step(
            "attention",
            module("benchmarks.studies.attention", f"--out={out / 'attention.json'}"),
            60,
            (device, package("rich")),
        ),
    ]


def architecture() -> dict[str, str]:
    """The one that is here, to build for it alone."""
    if device():
        return {}
    major, minor = torch.cuda.get_device_capability()
    return {"MARFAST_CUDA_ARCHS": f"{major}{minor}"}
