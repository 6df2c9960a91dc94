"""How fast marfast is beside others: its head, its images, the models of others."""

import textwrap
from typing import Any

from benchmarks.studies.sources import MACHINES, Document, read, transformers
from benchmarks.studies.tables.markdown import (
    NOT_YET,
    of_each_machine,
    percent,
    pictures,
    table,
    titled,
)
from marfast.bench.results import Row

OTHERS = ("original", "eager", "compile", "autocast")
HEADS = {"head-b": "MAR-B", "head-l": "MAR-L", "head-h": "MAR-H"}


def heads(where: str, document: Document) -> str:
    who_ran = {row["who"] for row in document["rows"]}
    others = [who for who in OTHERS if who in who_ran]
    columns = ["head", "R", *others, "float32", "against eager", "of floor"]
    columns += ["bfloat16", "against autocast", "of floor"]
    cases: dict[tuple[str, int], dict[str, Row]] = {}
    for row in document["rows"]:
        cases.setdefault((row["workload"], row["rows"]), {})[row["who"]] = row
    rows = []
    for (name, count), by_who in cases.items():
        cells = [HEADS[name], str(count)]
        cells += [milliseconds(by_who[who]) if who in by_who else "" for who in others]
        for who, against in (("cpu float32", "eager"), ("cpu bfloat16", "autocast")):
            row = by_who[who]
            cells += [milliseconds(row), f"{row['ratio_to'][against]:.1f}x"]
            cells.append(percent(row["share_of_floor"]))
        rows.append(cells)
    return titled(f"{where}, R rows, milliseconds a step", table(columns, rows))


def without_kernels() -> str:
    """The head by backend, `torch` among them, on the machine that was tried."""
    rows = read("head-torch")["rows"]
    told = f"R = {rows[0]['rows']}, S = {rows[0]['steps']}"
    title = f"MAR-B's head, {told}, {MACHINES['avx2']} (`head-torch.json`), milliseconds a step"
    cells = []
    for row in rows:
        ratios = (f"{row['ratio_to'][other]:.1f}x" for other in ("eager", "autocast"))
        cells.append([row["who"], milliseconds(row), *ratios])
    return titled(title, table(["who", "time", "against eager", "against autocast"], cells))


def milliseconds(row: Row) -> str:
    return f"{row['ms_a_step_p20_p50_p80'][1]:.2f}"


def images(where: str, document: Document) -> str:
    columns = ["K", "who", "transformers", "head", "image", "against eager"]
    columns += ["transformers, of peak", "memory"]
    rows = [
        [
            *(str(row["iterations"]), row["who"], f"{transformers(row):.1f}"),
            f"{row['phases']['head']:.1f}",
            f"{row['seconds_p20_p50_p80'][1]:.1f}",
            f"{row['ratio_to']['eager']:.2f}x",
            percent(row.get("transformers_share_of_peak")),
            memory(row),
        ]
        for row in document["rows"]
    ]
    return titled(f"{where}, seconds for one image of MAR-B", table(columns, rows))


def memory(row: Row) -> str:
    """What a run works in; empty where the operating system didn't tell."""
    found = row.get("working_mb")
    return "" if found is None else f"{found:.0f} MB"


def headline() -> str:
    """README's first sentence."""
    document = read("image-avx512_bf16")
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


def throughput(where: str, document: Document) -> str:
    who_ran = list(dict.fromkeys(row["who"] for row in document["rows"]))
    ours = [who for who in who_ran if who.startswith("marfast")]
    shown = [*(who for who in OTHERS if who in who_ran), *ours]
    ratios = {"marfast float32": "eager", "marfast bfloat16": "autocast"}
    columns = ["B", *shown, *(f"{who.split()[1]} against {ratios[who]}" for who in ours)]
    measured = ("eager", "marfast float32")
    columns += [f"memory, {who}" for who in measured]
    batches: dict[int, dict[str, Row]] = {}
    for row in document["rows"]:
        batches.setdefault(row["batch"], {})[row["who"]] = row
    rows = [
        [
            str(batch),
            *(f"{by_who[who]['images_a_second']:.1f}" for who in shown),
            *(f"{by_who[who]['ratio_to'][ratios[who]]:.2f}x" for who in ours),
            *(memory(by_who[who]) for who in measured),
        ]
        for batch, by_who in batches.items()
    ]
    title = f"{where}, the embedded model, images a second of a batch B"
    return titled(title, table(columns, rows))


def drop_in(where: str, document: Document) -> str:
    columns = ["model", "backend", "K", "original", "accelerated", "ratio", "difference"]
    rows = []
    for row in document["rows"]:
        blocks = f", {row['blocks']} blocks" if "blocks" in row else ""
        cells = [HEADS[f"head-{row['model'][4]}"] + blocks, row["backend"], str(row["iterations"])]
        for who in ("original", "accelerated"):
            times = row.get(f"{who}_seconds_p20_p50_p80")
            cells.append(f"{times[1]:.1f} s" if times else "")
        cells += [f"{row['ratio']:.2f}x" if "ratio" in row else "", f"{row['difference']:.1e}"]
        rows.append(cells)
    title = (
        f"{where}, the original's own `sample_tokens` before and after `marfast.accelerate`, "
        f"{document['steps']} steps; differences are relative to the tokens' scale"
    )
    return titled(title, table(columns, rows))


def models_of_a_machine(where: str, document: Document) -> str:
    columns = ["model", "head", "sampling", "dtype", "tokens", "own", "accelerated", "ratio"]
    columns += ["difference", "error against float64, own", "accelerated"]
    rows = [
        [row["model"], row["sizes"], row["sampling"], *_beside(case)]
        for row in document["rows"]
        for case in row["cases"]
    ]
    title = f"{where}, milliseconds of a model's own sampling and of the accelerated one"
    return titled(title, table(columns, rows))


def _beside(case: dict[str, Any]) -> list[str]:
    """A model's own sampling and the accelerated one."""
    times = [case[f"{who}_ms_p20_p50_p80"][1] for who in ("own", "accelerated")]
    errors = [case["error"][who]["rms"] for who in ("own", "accelerated")]
    return [
        *(case["dtype"], str(case["tokens"])),
        *(f"{time:.3g}" if time < 1000 else f"{time:.0f}" for time in times),
        f"{case['ratio']:.2f}x",
        *(f"{number:.1e}" for number in (case["difference"], *errors)),
    ]


def tokenizer(where: str, document: Document) -> str:
    rows = [
        [row["decoder"], str(row["batch"]), f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f} MB"]
        for row in document["rows"]
    ]
    columns = ["who", "images", "seconds", "peak memory"]
    return titled(f"{where}, KL-16's decoder, 256 × 256 pixels", table(columns, rows))


def speed() -> str:
    """All of it, table by table."""
    sections = {
        "head": heads,
        "image": images,
        "fashion-mnist": throughput,
        "drop-in": drop_in,
        "vae": tokenizer,
    }
    found = (of_each_machine(name, section) for name, section in sections.items())
    return "\n".join(filter(None, found))


def models() -> str:
    return of_each_machine("models", models_of_a_machine) or NOT_YET


def phases() -> str:
    return pictures("image-b", "fashion-mnist-phases")


def batch() -> str:
    return pictures("head-b", "head-b-throughput", "fashion-mnist-throughput")
