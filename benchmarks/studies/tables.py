"""The figures of README and docs, from the raw results: nobody types one.

python -m benchmarks.studies.tables            # rewrites what stands between the markers
python -m benchmarks.studies.tables --check    # exit status 1 if that would change anything
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.studies import IMAGES, RESULTS, ROOT, training_tables

MARKED = re.compile(r"(<!-- tables: (\w+) -->\n).*?(<!-- tables: end -->\n)", re.DOTALL)
MACHINES = {
    "avx512_amx": "Two Intel Xeon cores with AMX",
    "avx512_bf16": "Two AMD EPYC cores with AVX-512 BF16",
    "avx2": "Two AMD EPYC cores with AVX2 alone",
}
OTHERS = ("original", "eager", "compile", "autocast")
DTYPES = ("float32", "bfloat16")
UNITS = {"step": "a step", "sample": "a sample", "batch": "a batch", "image": "an image"}
HEADS = {"head-b": "MAR-B", "head-l": "MAR-L", "head-h": "MAR-H"}


def read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def heads(isa: str, document: dict[str, Any]) -> Iterator[str]:
    who_ran = {row["who"] for row in document["rows"]}
    others = [who for who in OTHERS if who in who_ran]
    yield f"{MACHINES[isa]} (`head-{isa}.json`), R rows, milliseconds a step:\n"
    yield f"| head | R | {' | '.join(others)} | float32 | against eager | of floor | bfloat16 | "
    yield f"against autocast | of floor |\n| --- | --- |{' --- |' * (len(others) + 6)}\n"
    cases: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in document["rows"]:
        cases.setdefault((row["workload"], row["rows"]), {})[row["who"]] = row
    for (name, count), by_who in cases.items():
        cells = [HEADS[name], str(count)]
        cells += [milliseconds(by_who[who]) if who in by_who else "" for who in others]
        for who, against in (("cpu float32", "eager"), ("cpu bfloat16", "autocast")):
            row = by_who[who]
            share = f"{100 * row['share_of_floor']:.0f} %"
            cells += [milliseconds(row), f"{row['ratio_to'][against]:.1f}x", share]
        yield f"| {' | '.join(cells)} |\n"


def without_kernels() -> str:
    """The head by backend, `torch` among them, on the machine that was tried."""
    document = read("head-torch")
    assert document is not None
    rows = document["rows"]
    told = f"R = {rows[0]['rows']}, S = {rows[0]['steps']}"
    title = f"MAR-B's head, {told}, {MACHINES['avx2']} (`head-torch.json`), milliseconds a step:"
    lines = ["| who | time | against eager | against autocast |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratios = (f"{row['ratio_to'][other]:.1f}x" for other in ("eager", "autocast"))
        lines.append(f"| {row['who']} | {milliseconds(row)} | {' | '.join(ratios)} |")
    return f"{title}\n\n" + "\n".join(lines) + "\n"


def milliseconds(row: dict[str, Any]) -> str:
    return f"{row['ms_a_step_p20_p50_p80'][1]:.2f}"


def images(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`image-{isa}.json`), seconds for one image of MAR-B:\n"
    columns = ("transformers", "head", "image", "against eager", "transformers, of peak", "memory")
    yield f"| K | who | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 2)}\n"
    for row in document["rows"]:
        share = row.get("transformers_share_of_peak")
        cells = [
            *(str(row["iterations"]), row["who"], f"{transformers(row):.1f}"),
            f"{row['phases']['head']:.1f}",
            f"{row['seconds_p20_p50_p80'][1]:.1f}",
            f"{row['ratio_to']['eager']:.2f}x",
            "" if share is None else f"{100 * share:.0f} %",
            memory(row),
        ]
        yield f"| {' | '.join(cells)} |\n"


def memory(row: dict[str, Any]) -> str:
    """What a run works in; empty where the operating system didn't tell."""
    found = row.get("working_mb")
    return "" if found is None else f"{found:.0f} MB"


def transformers(row: dict[str, Any]) -> float:
    """Seconds of encoder and decoder."""
    return sum(row["phases"].get(phase, 0.0) for phase in ("transformers", "encoder", "decoder"))


def headline() -> str:
    """README's first sentence."""
    document = read("image-avx512_bf16")
    assert document is not None
    rows = {row["who"]: row for row in document["rows"] if row["iterations"] == 64}
    seconds = {who: row["seconds_p20_p50_p80"][1] for who, row in rows.items()}
    ratio = {who: row["ratio_to"]["original"] for who, row in rows.items()}
    ours, half = "marfast float32", "marfast bfloat16"
    sentence = (
        "marfast makes [MAR](https://arxiv.org/abs/2406.11838), the image generator that predicts"
        " continuous tokens by diffusion, fast: one 256 × 256 image of MAR-B, in 64 iterations,"
        f" takes [the original](https://github.com/LTH14/mar) **{seconds['original']:.0f} s** on"
        f" two AMD EPYC cores, and marfast **{seconds[ours]:.0f} s** in float32"
        f" ({ratio[ours]:.1f}x) or **{seconds[half]:.0f} s** in bfloat16 ({ratio[half]:.1f}x),"
        " from the same weights and the same seed."
    )
    return textwrap.fill(sentence, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def throughput(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`fashion-mnist-{isa}.json`), the embedded model, images a second of a "
    yield "batch B:\n"
    who_ran = list(dict.fromkeys(row["who"] for row in document["rows"]))
    ours = [who for who in who_ran if who.startswith("marfast")]
    shown = [*(who for who in OTHERS if who in who_ran), *ours]
    ratios = {"marfast float32": "eager", "marfast bfloat16": "autocast"}
    against = [f"{who.split()[1]} against {ratios[who]}" for who in ours]
    held = [f"memory, {who}" for who in ("eager", "marfast float32")]
    yield f"| B | {' | '.join([*shown, *against, *held])} |\n"
    yield f"| --- |{' --- |' * (len(shown) + len(against) + len(held))}\n"
    batches: dict[int, dict[str, dict[str, Any]]] = {}
    for row in document["rows"]:
        batches.setdefault(row["batch"], {})[row["who"]] = row
    for batch, by_who in batches.items():
        cells = [f"{by_who[who]['images_a_second']:.1f}" for who in shown]
        cells += [f"{by_who[who]['ratio_to'][ratios[who]]:.2f}x" for who in ours]
        cells += [memory(by_who[who]) for who in ("eager", "marfast float32")]
        yield f"| {batch} | {' | '.join(cells)} |\n"


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


def models(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`models-{isa}.json`), milliseconds of a model's own sampling and "
    yield "of the accelerated one:\n"
    yield "| model | head | sampling | dtype | tokens | own | accelerated | ratio | difference | "
    yield f"error against float64, own | accelerated |\n|{' --- |' * 11}\n"
    for row in document["rows"]:
        for case in row["cases"]:
            times = [case[f"{who}_ms_p20_p50_p80"][1] for who in ("own", "accelerated")]
            errors = [case["error"][who]["rms"] for who in ("own", "accelerated")]
            cells = [
                *(row["model"], row["sizes"], row["sampling"], case["dtype"], str(case["tokens"])),
                *(f"{time:.3g}" if time < 1000 else f"{time:.0f}" for time in times),
                f"{case['ratio']:.2f}x",
                *(f"{number:.1e}" for number in (case["difference"], *errors)),
            ]
            yield f"| {' | '.join(cells)} |\n"


def tokenizer(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`vae-{isa}.json`), KL-16's decoder, 256 × 256 pixels:\n"
    yield "| who | images | seconds | peak memory |\n| --- | --- | --- | --- |\n"
    for row in document["rows"]:
        cells = [row["decoder"], str(row["batch"]), f"{row['seconds']:.2f}"]
        yield f"| {' | '.join(cells)} | {row['peak_mb']:.0f} MB |\n"


def lines(document: dict[str, Any], loop: bool) -> Iterator[str]:
    """What was fitted, of the head or of the loop."""
    yield "| of | dtype | time | a, ms | b, ms | residual, RMS | worst | exponent at the end |\n"
    yield f"|{' --- |' * 8}\n"
    for fit in document["fits"]:
        if (fit["workload"] != "head") is not loop:
            continue
        left = [fit[name] for name in ("rms", "worst")]
        cells = [
            *(
                f"{fit['workload']}, {UNITS[fit['unit']]}",
                fit["dtype"],
                f"a + b {fit['quantity']}".replace(" 1/", " / "),
            ),
            *(f"{fit[name]:.3g}" for name in ("intercept", "slope")),
            *("" if value is None else f"{100 * value:.1f} %" for value in left),
            f"{fit['exponent']:.2f}",
        ]
        yield f"| {' | '.join(cells)} |\n"


def kernels(isa: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"{MACHINES[isa]} (`roofline-{isa}.json`):\n"
    yield "| op | sizes | dtype | backend | µs | FLOP a byte | GFLOP/s | GB/s |\n"
    yield f"|{' --- |' * 8}\n"
    for row in document["rows"]:
        cells = [
            *(f"`{row['op']}`", row["case"], row["dtype"]),
            *(row["backend"], f"{row['us_p20_p50_p80'][1]:,.0f}"),
            *(f"{row[name]:.3g}" for name in ("flops_a_byte", "gflops_a_second", "gb_a_second")),
        ]
        yield f"| {' | '.join(cells)} |\n"


def parts(isa: str, document: dict[str, Any]) -> Iterator[str]:
    """Where the time of an iteration goes."""
    peak, name = document["peak_flops"] / 1e9, f"transformers-{isa}.json"
    yield f"{MACHINES[isa]} (`{name}`), fastest product {peak:.0f} GFLOP/s:\n"
    yield "| workload | part | ms | of peak |\n| --- | --- | --- | --- |\n"
    for row in document["rows"]:
        for part in row["parts"]:
            share = part["share_of_peak"]
            cells = [row["workload"], part["part"], f"{part['ms']:.2f}"]
            cells += ["" if share is None else f"{100 * share:.0f} %"]
            yield f"| {' | '.join(cells)} |\n"
        total = sum(part["ms"] for part in row["eager"])
        yield f"| {row['workload']} | plain PyTorch, all | {total:.2f} | |\n"


def device_work() -> str:
    """Operations, copies and waits of each backend."""
    document = read("device-work")
    assert document is not None
    lines = ["| who | a step, float32 | bfloat16 | an iteration, float32 | copies a step | waits |"]
    lines.append(f"|{' --- |' * 6}")
    for row in document["rows"]:
        steps, iteration = row["step"], row["iteration"] or {}
        cells = [row["who"], *(str(steps.get(d, {}).get("operations", "")) for d in DTYPES)]
        cells += [f"{iteration['operations']:,}" if iteration else ""]
        cells += [str(steps["float32"][kind]) for kind in ("copies", "waits")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def quality() -> str:
    """Fashion-MNIST by the classifier: the original's images, ours, real ones."""
    from marfast.evaluation.real_images import real_images

    beside, study = read("quality-against-original"), read("quality-fashion-mnist")
    assert beside is not None
    assert study is not None
    settings = {name: beside["settings"][name] for name in ("num_iter", "steps", "cfg")}
    settings |= {name: beside["settings"][name] for name in ("cfg_schedule", "temperature")}
    most = max(row["n"] for row in study["rows"])
    [row] = [row for row in study["rows"] if row["n"] == most and settings.items() <= row.items()]
    lines = ["| images | count | accuracy | Fréchet distance |", "| --- | --- | --- | --- |"]
    for measured in (*beside["rows"], row | {"what": "marfast, embedded model"}):
        accuracy, distance = measured["accuracy"], measured["frechet_distance"]
        lines.append(
            f"| {measured['what']} | {measured['n']:,} | {100 * accuracy:.1f} % | {distance:.2f} |"
        )
    lines.append(f"| real test images | 10,000 | {100 * real_images().accuracy:.1f} % | |")
    for n in (1_000, most):
        lines.append(f"| real training images | {n:,} | | {real_images().distance(n):.2f} |")
    return "\n".join(lines) + "\n"


def editing() -> str:
    """Edits of test images to another class, and what an edit of a quarter costs."""
    worth, cost = read("editing-accuracy"), read("editing-time")
    assert worth is not None
    assert cost is not None
    lines = [
        "| lower half made anew, guidance's ramp over | count | seen as asked | of a kind | "
        "seen as before | Fréchet distance |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in worth["rows"]:
        shares = [row[name] for name in ("accuracy", "accuracy_of_a_kind", "seen_as_before")]
        cells = [row["ramp"], f"{row['n']:,}", *(f"{100 * share:.1f} %" for share in shares)]
        lines.append(f"| {' | '.join(cells)} | {row['frechet_distance']:.1f} |")
    beside = read("quality-against-original")
    assert beside is not None
    generated = beside["rows"][-1]
    cells = ["a generation", f"{generated['n']:,}", f"{100 * generated['accuracy']:.1f} %", "", ""]
    lines.append(f"| {' | '.join(cells)} | {generated['frechet_distance']:.1f} |")
    lines += [
        "",
        "| model | batch | tokens made anew | share | time of an edit against a generation |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in cost["rows"]:
        share = 100 * row["unknown"] / row["tokens"]
        tokens = f"{row['unknown']} of {row['tokens']}"
        cells = [row["model"], str(row["batch"]), tokens, f"{share:.0f} %"]
        lines.append(f"| {' | '.join(cells)} | {100 * row['ratio']:.0f} % |")
    return "\n".join(lines) + "\n"


def samplers() -> str:
    """Accuracy and Fréchet distance by sampler and steps, and the fewest steps that are near DDPM's
    hundred."""
    from benchmarks.studies.quality.samplers import base_of, by_sampler, fewest_steps

    if (document := read("quality-samplers")) is None:
        return "Not measured yet.\n"
    found = by_sampler(document["rows"])
    base = base_of(found)
    steps = sorted({row["steps"] for rows in found.values() for row in rows})
    lines = [
        f"| sampler | {' | '.join(f'{count} steps' for count in steps)} | near from |",
        "| --- |" + " --- |" * (len(steps) + 1),
    ]
    for name, rows in found.items():
        cells = {row["steps"]: row for row in rows}
        shown = [
            f"{100 * row['accuracy']:.1f} %, {row['frechet_distance']:.1f}" if row else ""
            for row in map(cells.get, steps)
        ]
        fewest = fewest_steps(rows, base)
        end = "–" if fewest is None else f"{fewest} steps"
        lines.append(f"| {name} | {' | '.join(shown)} | {end} |")
    text = f"{base['n']:,} images a cell: accuracy, Fréchet distance.\n\n" + "\n".join(lines)
    return f"{text}\n\n{picture('quality-samplers', 'Quality by sampler and number of steps')}"


def training(isa: str, document: dict[str, Any]) -> Iterator[str]:
    where = f"{MACHINES[isa]} (`training-{isa}.json`)"
    yield f"{where}, MAR-B at batch {document['batch']}, one thread:\n"
    yield "| dtype | loss | blocks computed again | processor seconds a step | speed | peak memory "
    yield "| of the original's | memory of a step | of the original's |\n" + "| --- " * 9 + "|\n"
    rows = {(row["dtype"], row["contender"]): row for row in document["rows"]}
    for (dtype, contender), row in rows.items():
        base = rows[dtype, "original"]
        whose, _, blocks = contender.partition(", ")
        speed = base["seconds_median"] / row["seconds_median"]
        cells = [dtype, whose, blocks.removesuffix(" again") or "none"]
        cells += [f"{row['seconds_median']:.1f}", f"{speed:.2f}x"]
        for name in ("peak_mb", "step_mb"):
            cells += [f"{row[name] / 1000:.2f} GB", f"{row[name] / base[name]:.2f}"]
        yield f"| {' | '.join(cells)} |\n"


def training_section() -> str:
    """The table of each machine, and the curves."""
    return "\n".join((tables((("training", training),)), pictures("training")))


Table = Callable[[str, dict[str, Any]], Iterator[str]]
SPEED: tuple[tuple[str, Table], ...] = (
    ("head", heads),
    ("image", images),
    ("fashion-mnist", throughput),
    ("drop-in", drop_in),
    ("vae", tokenizer),
)


def tables(chosen: tuple[tuple[str, Table], ...]) -> str:
    """Each table of each machine that has its results."""
    parts = []
    for name, table in chosen:
        for isa in MACHINES:
            if (document := read(f"{name}-{isa}")) is not None:
                title, _, rest = "".join(table(isa, document)).partition("\n")
                parts.append(f"{title}\n\n{rest}")
    return "\n".join(parts)


def scaling(loop: bool) -> str:
    """Picture and lines for each machine that has them."""
    part, parts = "loop" if loop else "head", []
    for isa, machine in MACHINES.items():
        if (document := read(f"scaling-{isa}")) is None:
            continue
        parts += [f"{machine} (`scaling-{isa}.json`):\n"]
        parts += [picture(f"scaling-{part}-{isa}", f"Scaling of the {part}, {machine}")]
        parts += ["".join(lines(document, loop))]
    return "\n".join(filter(None, parts))


def pictures(*names: str) -> str:
    """Those that exist, machine by machine."""
    found = [
        picture(f"{name}-{isa}", f"{name}, {machine}")
        for name in names
        for isa, machine in MACHINES.items()
    ]
    return "\n".join(filter(None, found))


def picture(name: str, text: str) -> str:
    return f"![{text}](images/{name}.png)\n" if (IMAGES / f"{name}.png").exists() else ""


SECTIONS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "speed": lambda: tables(SPEED),
    "without_kernels": without_kernels,
    "phases": lambda: pictures("image-b", "fashion-mnist-phases"),
    "batch": lambda: pictures("head-b", "head-b-throughput", "fashion-mnist-throughput"),
    "head": lambda: scaling(loop=False),
    "loop": lambda: scaling(loop=True),
    "roofline": lambda: "\n".join((pictures("roofline"), tables((("roofline", kernels),)))),
    "parts": lambda: tables((("transformers", parts),)),
    "device_work": device_work,
    "quality": quality,
    "editing": editing,
    "samplers": samplers,
    "training": training_section,
    "vowels": training_tables.vowels,
    "kills": training_tables.kills,
    "models": lambda: tables((("models", models),)) or "Not measured yet.\n",
}
PAGE_NAMES = (
    *("performance", "quality", "editing", "samplers", "training", "models"),
    "gpu_without_a_gpu",
)
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGE_NAMES))


def rewritten(page: str) -> str:
    """The page with what stands between each pair of markers made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{SECTIONS[found[2]]()}\n{found[3]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if check and before != after:
            sys.exit(f"{page} is not made from the results")
        if not check:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
