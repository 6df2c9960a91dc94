"""The user's checkout of LTH14/mar: is it one, can it run here; its results, from a subprocess."""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import torch

from marfast.verifying.case import Result

TIMM = "0.9.12"
FILES = (
    "models/mar.py",
    "models/diffloss.py",
    "models/vae.py",
    "diffusion/__init__.py",
    "diffusion/diffusion_utils.py",
    "diffusion/gaussian_diffusion.py",
    "diffusion/respace.py",
)
COMMIT = "fe470ac24afbee924668d8c5c83e9fec60af3a73"
COMMIT_FINGERPRINT = "15e4f8ba87944d1b5abf848f275abca37c3941c971cc81afdf02463718870632"

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from marfast.verifying.runner import main; main(*sys.argv[2:])"
)


class OriginalError(ValueError):
    """The original can't be run here; the message says why in one line."""


def require_packages() -> None:
    """Raise OriginalError unless what the original imports is installed."""
    for package, wanted in (("timm", TIMM), ("scipy", None), ("tqdm", None)):
        needed = f"{package} {wanted}" if wanted else package
        extra = "pip install 'marfast[original]'"
        # timm asks for torchvision, which the original's model has no use for
        install = f"{extra} && pip install --no-deps timm=={TIMM}" if wanted else extra
        remedy = f"the original needs {needed}: {install}"
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise OriginalError(f"{package} is not installed; {remedy}") from None
        if wanted and found != wanted:
            raise OriginalError(f"{package} {found} is installed; {remedy}")


def require_checkout(path: str | Path) -> Path:
    """The checkout's absolute path; OriginalError unless it has the original's files."""
    checkout = Path(path).expanduser().resolve()
    if not checkout.is_dir():
        raise OriginalError(f"{path}: no such directory")
    for file in FILES:
        if not (checkout / file).is_file():
            raise OriginalError(f"{path}: not a checkout of LTH14/mar: {file} is missing")
    return checkout


def fingerprint(checkout: Path) -> str:
    """A hash of the files that are run, whatever their line ends."""
    digest = hashlib.sha256()
    for file in FILES:
        digest.update((checkout / file).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def commit(checkout: Path) -> str | None:
    """The commit of LTH14/mar whose code this is, or None where it has been changed."""
    return COMMIT if fingerprint(checkout) == COMMIT_FINGERPRINT else None


class RunningOriginal:
    """The original at work in a subprocess, on the cases `indices` of the module `source`.

    `source` has `all_cases() -> list[Case]`. Use as a context manager; `result` waits for a case.
    """

    def __init__(self, checkout: Path, source: str, indices: Iterable[int], threads: int):
        self._checkout, self._source, self._threads = checkout, source, threads
        self._indices = list(indices)

    def __enter__(self) -> "RunningOriginal":
        self._directory = tempfile.TemporaryDirectory(prefix="marfast-")
        self._log = Path(self._directory.name, "log")
        environment = {k: v for k, v in os.environ.items() if k != "TIMM_FUSED_ATTN"}
        arguments = (
            str(self._checkout),
            self._source,
            str(self._threads),
            ",".join(map(str, self._indices)),
            self._directory.name,
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), *arguments],
                env=environment | {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def result(self, index: int) -> Result:
        """The original's result of a case, as soon as it is there; each can be asked for once."""
        file = Path(self._directory.name, f"{index}.pt")
        while not file.exists():
            if self._process.poll() is not None and not file.exists():
                lines = self._log.read_text(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else f"exit status {self._process.returncode}"
                raise OriginalError(f"{self._checkout}: the original does not run: {reason}")
            time.sleep(0.01)
        loaded: Result = torch.load(file, weights_only=True)
        file.unlink()
        return loaded
