"""Other models' own sampling beside the accelerated one: docs/models.md's table.

    python -m benchmarks.studies.models --code nextstep=path/to/NextStep-1 pocket-tts=path/to/wheel

Each model's own code, told by its path, runs in a process of its own, uncompiled: random weights at
the published sizes, 1 and 8 tokens at once (`--tokens 1` for ming-univision, which samples them one
by one), float32 and bfloat16, before and after `marfast.accelerate` in turn. What it needs beside
torch has to be importable. Writes benchmarks/results/models-<instruction set>.json; models that
aren't named keep their rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.studies import RESULTS, ROOT, instruction_set
from benchmarks.studies.models.own import OWN
from marfast.bench.results import Row, commit, read_document, write_rows

UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1", "XFORMERS_DISABLED": "1"}


def measured(name: str, code: Path, tokens: str, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="marfast-") as folder:
        out = Path(folder, "rows.json")
        command = [sys.executable, "-m", "benchmarks.studies.models.one", name, str(code)]
        command += ["--out", str(out), "--tokens", tokens, "--rounds", str(rounds)]
        subprocess.run(command, cwd=ROOT, env=os.environ | UNCOMPILED, check=True)
        rows: list[Row] = json.loads(out.read_text())
    return rows


def revision(code: Path) -> str:
    """The commit of a checkout, or the name of a folder that is none."""
    done = subprocess.run(
        ["git", "-C", str(code), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or code.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", nargs="+", required=True, metavar="NAME=PATH[@REVISION]")
    parser.add_argument("--tokens", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = dict(given.split("=", 1) for given in options.code)
    if unknown := [name for name in paths if name not in OWN]:
        parser.error(f"--code: {unknown[0]}; allowed are {', '.join(OWN)}")
    file = RESULTS / f"models-{instruction_set()}.json"
    rows = {row["model"]: row for row in read_document(file).get("rows", [])}
    for name, given in paths.items():
        path, _, told = given.partition("@")
        code, own = Path(path).resolve(), OWN[name]
        rows[name] = {
            "model": name,
            "repository": own.repository,
            "revision": told or revision(code),
            "commit": commit(),
            "sizes": str(own.sizes),
            "sampling": own.sampling,
            "cases": measured(name, code, options.tokens, options.rounds),
        }
        ordered = [rows[known] for known in OWN if known in rows]
        write_rows(file, ordered, force=True)


if __name__ == "__main__":
    main()
