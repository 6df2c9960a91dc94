"""The README's tables of speed, from the raw results: nobody types a figure.

python benchmarks/tables.py            # rewrites what stands between the markers
python benchmarks/tables.py --check    # exit status 1 if that would change anything
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks/tables.py: begin -->\n", "<!-- benchmarks/tables.py: end -->\n"
MACHINES = {
    "avx512_amx": "Two Intel Xeon cores with AMX",
    "avx512_bf16": "Two AMD EPYC cores with AVX-512 BF16",
    "avx2": "Two AMD EPYC cores with AVX2 alone",
}
HEADS = {"head-b": "MAR-B", "head-l": "MAR-L", "head-h": "MAR-H"}


def read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def heads(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`head-{isa}.json`), R rows, milliseconds a step:\n"
    yield "| head | R | eager | autocast | float32 | against eager | of floor | bfloat16 | "
    yield "against autocast | of floor |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    cases: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in document["rows"]:
        cases.setdefault((row["workload"], row["rows"]), {})[row["who"]] = row
    for (name, count), by_who in cases.items():
        cells = [HEADS[name], str(count)]
        cells += [milliseconds(by_who[who]) for who in ("eager", "autocast")]
        for who, against in (("cpu float32", "eager"), ("cpu bfloat16", "autocast")):
            row = by_who[who]
            share = f"{100 * row['share_of_floor']:.0f} %"
            cells += [milliseconds(row), f"{row['ratio_to'][against]:.1f}x", share]
        yield f"| {' | '.join(cells)} |\n"


def milliseconds(row: dict[str, Any]) -> str:
    return f"{row['ms_a_step_p20_p50_p80'][1]:.2f}"


def images(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`image-{isa}.json`), seconds for one image of MAR-B:\n"
    yield "| K | who | transformers | head | image | against eager | transformers, of peak |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- |\n"
    for row in document["rows"]:
        phases = row["phases"]
        transformers = sum(phases.get(p, 0.0) for p in ("transformers", "encoder", "decoder"))
        share = row.get("transformers_share_of_peak")
        cells = [
            *(str(row["iterations"]), row["who"], f"{transformers:.1f}", f"{phases['head']:.1f}"),
            f"{row['seconds_p20_p50_p80'][1]:.1f}",
            f"{row['ratio_to']['eager']:.2f}x",
            "" if share is None else f"{100 * share:.0f} %",
        ]
        yield f"| {' | '.join(cells)} |\n"


def drop_in(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`drop-in-{isa}.json`), the original's own `sample_tokens` before and "
    yield f"after `marfast.accelerate`, {document['steps']} steps; differences are relative to the "
    yield "tokens' scale:\n"
    yield "| model | backend | K | original | accelerated | ratio | difference |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- |\n"
    for row in document["rows"]:
        blocks = f", {row['blocks']} blocks" if "blocks" in row else ""
        cells = [HEADS[f"head-{row['model'][4]}"] + blocks, row["backend"], str(row["iterations"])]
        for who in ("original", "accelerated"):
            times = row.get(f"{who}_seconds_p20_p50_p80")
            cells.append(f"{times[1]:.1f} s" if times else "")
        cells += [f"{row['ratio']:.2f}x" if "ratio" in row else "", f"{row['difference']:.1e}"]
        yield f"| {' | '.join(cells)} |\n"


def tokenizer(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`vae-{isa}.json`), KL-16's decoder, 256 × 256 pixels:\n"
    yield "| who | images | seconds | peak memory |\n| --- | --- | --- | --- |\n"
    for row in document["rows"]:
        cells = [row["decoder"], str(row["batch"]), f"{row['seconds']:.2f}"]
        yield f"| {' | '.join(cells)} | {row['peak_mb']:.0f} MB |\n"


TABLES = (("head", heads), ("image", images), ("drop-in", drop_in), ("vae", tokenizer))


def section() -> str:
    parts = []
    for name, table in TABLES:
        for isa in MACHINES:
            if (document := read(f"{name}-{isa}")) is not None:
                title, _, rest = "".join(table(isa, document)).partition("\n")
                parts.append(f"{title}\n\n{rest}")
    return "\n".join(parts)


def rewritten(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{section()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    before = README.read_text()
    after = rewritten(before)
    if parser.parse_args().check:
        sys.exit(before != after)
    README.write_text(after)


if __name__ == "__main__":
    main()
