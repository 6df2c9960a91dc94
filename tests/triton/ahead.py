"""Kernels without a GPU: what launchers ask for is recorded, and compiled ahead of time.

The launchers run on a driver that stands in for a GPU's; Triton's hook before each compilation
notes the kernel, the types and constants it is specialised for, and its options, and forbids the
rest.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

BINARIES = Path(nvidia.__file__).parent / "bin"


class Request(NamedTuple):
    """A compilation that a launch asked for."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__).removesuffix("_kernel")


class Resources(NamedTuple):
    """What a compiled kernel takes: registers a thread (vector registers on AMD), bytes of spills a
    thread (stores and loads), bytes of shared memory."""

    registers: int
    spills: int
    shared: int


class _Driver:
    """As much of a GPU's driver as a launch looks at before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 1000 + list(TARGETS.values()).index(self._target)  # no real one: kernels keep caches

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recorded(target: GPUTarget) -> Iterator[dict[str, Request]]:
    """Collects what launches inside would compile; nothing is compiled, nothing runs."""
    requests: dict[str, Request] = {}
    driver, runtime = triton.runtime.driver, triton.knobs.runtime

    def note(*, key: str, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        names = ("num_warps", "num_stages", "enable_fp_fusion")
        options = {name: compile[name] for name in names}
        kinds = (compile["signature"], compile["constants"], compile["configs"][0], options)
        requests.setdefault(f"{fn.name} {key}", Request(fn.jit_function, *kinds))
        return True  # no compilation

    before = driver._active, runtime.jit_cache_hook
    driver._active, runtime.jit_cache_hook = _Driver(target), note
    try:
        yield requests
    finally:
        driver._active, runtime.jit_cache_hook = before


def requests(target: GPUTarget, *launches: Callable[[], Any]) -> list[Request]:
    """What these launches compile for a target, each kernel once."""
    with recorded(target) as found:
        for launch in launches:
            launch()
    return [*found.values()]


def compiled(request: Request, target: GPUTarget) -> Any:
    source = ASTSource(request.kernel, request.signature, request.constants, request.attributes)
    return triton.compile(source, target=target, options=request.options)


def resources(kernel: Any, target: GPUTarget) -> Resources:
    """Registers and spills as the assembler reports them."""
    shared = int(kernel.metadata.shared)
    if target.backend == "hip":
        found = dict(re.findall(r"\.(\w+):\s*(\d+)\s*\n", kernel.asm["amdgcn"]))
        registers, spills = int(found["vgpr_count"]), int(found["private_segment_fixed_size"])
        return Resources(registers, spills, shared)
    blackwell = target.arch >= 100
    architecture = f"sm_{target.arch}{'a' if target.arch >= 90 else ''}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as ptx:
        ptx.write(kernel.asm["ptx"])
        ptx.flush()
        assembler = str(BINARIES / ("ptxas-blackwell" if blackwell else "ptxas"))
        command = [assembler, "-v", f"--gpu-name={architecture}", ptx.name, "-o", "/dev/null"]
        fused = [] if kernel.metadata.enable_fp_fusion else ["--fmad=false"]
        done = subprocess.run([*command, *fused], capture_output=True, text=True, check=True)
    (registers,) = re.findall(r"Used (\d+) registers", done.stderr)
    spills = re.findall(r"(\d+) bytes spill", done.stderr)
    return Resources(int(registers), sum(map(int, spills)), shared)


def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Memory that nothing will be read from."""
    return torch.empty(sizes, dtype=dtype)
