"""Writes the folder that the package `kernels` loads: `python -m hub.layout OUT`.

    OUT/CARD.md, LICENSE, NOTICE
    OUT/build/torch-cpu/    __init__.py, layers.py, metadata.json, and what they need
                            of marfast
    OUT/build/torch-cuda/   the same, as another build

Imports become relative, so that ops are in a namespace of the build's name (marfast/ops/op.py). The
native extensions have none of torch's headers: those of several Pythons lie side by side, and where
none is for the Python at hand, PyTorch's own operators run.
"""

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = 1
"""Of the Hub's repository, whose branch is v1: raised where a caller would notice."""
BACKENDS = ("cpu", "cuda")
ROOMS = ("ops", "reference")
FILES = (
    *("_version.py", "errors.py", "files.py", "hardware.py", "profiling.py"),
    *(f"model/{name}.py" for name in ("block", "head_kind", "own", "packing", "trial")),
)
"""Of marfast, besides the rooms."""
IMPORT = re.compile(r"^( *)from (?:marfast|hub)((?:\.\w+)*) import ", re.M)


def lay_out(target: Path, extensions: Iterable[Path]) -> None:
    """Write the folder, which must not be there yet, with these native extensions."""
    sources, native = dict(_sources()), sorted(extensions)
    contents = hashlib.sha256(repr(sorted(sources.items())).encode())
    for extension in native:
        contents.update(extension.read_bytes())
    target.mkdir(parents=True)
    for name in ("LICENSE", "NOTICE", "hub/CARD.md"):
        shutil.copy(ROOT / name, target)
    for backend in BACKENDS:
        build = target / "build" / f"torch-{backend}"
        _write(build, sources)
        for extension in native:
            shutil.copy(extension, build)
        metadata = {
            "name": "marfast",
            "id": f"_marfast_{backend}_{contents.hexdigest()[:12]}",
            "version": VERSION,
            "license": "MIT",
            "python-depends": [],
            "backend": {"type": backend},
        }
        (build / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")


def _sources() -> Iterable[tuple[str, str]]:
    """Each file's place in a build, and what it holds there."""
    yield "model/__init__.py", ""
    for name in (*FILES, *(str(file) for room in ROOMS for file in _python_files(room))):
        yield name, _relative((ROOT / "marfast" / name).read_text(), depth=name.count("/"))
    for name, place in (("kernel", "__init__"), ("layers", "layers")):
        yield f"{place}.py", _relative((ROOT / "hub" / f"{name}.py").read_text(), depth=0)


def _python_files(room: str) -> Iterable[Path]:
    folder = ROOT / "marfast"
    return (file.relative_to(folder) for file in sorted((folder / room).rglob("*.py")))


def _relative(source: str, depth: int) -> str:
    """Its imports of marfast, from a file that lies so deep."""
    return IMPORT.sub(lambda found: f"{found[1]}from .{'.' * depth}{found[2][1:]} import ", source)


def _write(folder: Path, sources: Mapping[str, str]) -> None:
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the folder that `kernels` loads.")
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument(
        "--extension",
        type=Path,
        action="append",
        help="a native extension, as out of a wheel; repeatable [default: those built here]",
    )
    given = parser.parse_args()
    lay_out(given.out, given.extension or (ROOT / "marfast").glob("_c*.so"))


if __name__ == "__main__":
    main()
