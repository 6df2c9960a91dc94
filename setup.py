"""Hands the native extension over to CMake; everything else is in pyproject.toml.

Environment: MARFAST_BUILD_NATIVE = auto (default: install without the extension where it can't be
built), 1 (a failure is an error) or 0 (don't build it); MARFAST_BUILD_CUDA and
MARFAST_CUDA_ARCHS (docs/environment.md); MAX_JOBS.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent


def option(name, allowed):
    value = os.environ.get(name) or "auto"
    if value not in allowed:
        raise SystemExit(f"{name}={value!r}; allowed: {', '.join(allowed)}")
    return value


def whole(name, default):
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and int(value)):
        raise SystemExit(f"{name}={value!r}; allowed: whole numbers from 1")
    return value


NATIVE = option("MARFAST_BUILD_NATIVE", ("auto", "0", "1"))
CUDA = option("MARFAST_BUILD_CUDA", ("auto", "0", "1"))
JOBS = whole("MAX_JOBS", os.cpu_count() or 1)
ARCHS = os.environ.get("MARFAST_CUDA_ARCHS")  # such as 80;90


class CMakeBuild(build_ext):
    def build_extension(self, ext):
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            self.build_with_cmake(target.parent)
        except (ImportError, OSError) as error:
            # No older build may be taken for this one.
            target.unlink(missing_ok=True)
            if self.editable_mode:
                (ROOT / "marfast" / target.name).unlink(missing_ok=True)
            # With `optional`, setuptools goes on after this.
            raise CompileError(f"marfast is without native kernels: {error}") from None
        # setuptools copies only what it knows of into the source tree.
        if self.editable_mode:
            for stale in (ROOT / "marfast").glob("_cuda.*.so"):
                stale.unlink()
            for built in target.parent.glob("_cuda.*.so"):
                shutil.copy2(built, ROOT / "marfast")

    def build_with_cmake(self, destination):
        import pybind11

        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            *("-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DMARFAST_BUILD_CUDA={CUDA}",
            *([f"-DMARFAST_CUDA_ARCHS={ARCHS}"] if ARCHS else []),
        ]
        if ninja := shutil.which("ninja", path=search_path()):
            configure.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
        run("cmake", *configure)
        run("cmake", "--build", str(build), "--parallel", JOBS)
        run("cmake", "--install", str(build), "--prefix", str(destination))


def search_path():
    """PATH, after the folder of this interpreter, where pip puts cmake and ninja."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def run(program, *arguments):
    found = shutil.which(program, path=search_path())
    if found is None:
        raise FileNotFoundError(f"{program} is not installed")
    if status := subprocess.run([found, *arguments]).returncode:
        raise OSError(f"{program} failed with status {status}; its output is above")


def scratch():
    """Where setuptools writes when it may not write into the source tree."""
    if os.access(ROOT, os.W_OK):
        return {}
    folder = tempfile.mkdtemp(prefix="marfast-build-")
    return {"egg_info": {"egg_base": folder}, "build": {"build_base": folder}}


LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?:)([^)]+)\)")


def long_description():
    """README.md for a page elsewhere: its links into the repository led to where that is published
    (`Source` in pyproject.toml, as GitHub's), or left out, and pictures with them, while it isn't.
    """
    published = re.search('^Source = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    def elsewhere(link):
        picture, text, path = link.groups()
        if published is None:
            return "" if picture else text
        return f"{picture}[{text}]({published[1]}/{'raw' if picture else 'blob'}/HEAD/{path})"

    return LINK.sub(elsewhere, (ROOT / "README.md").read_text(encoding="utf-8"))


extension = Extension("marfast._cpu", sources=[], optional=NATIVE == "auto")
setup(
    ext_modules=[] if NATIVE == "0" else [extension],
    cmdclass={"build_ext": CMakeBuild},
    options=scratch(),
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
