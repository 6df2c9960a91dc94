"""What there is to do, and how near to the machine's limits it is done."""

from benchmarks.studies.sources import MACHINES, UNITS, Document, by_machine, read
from benchmarks.studies.tables.markdown import (
    of_each_machine,
    percent,
    picture,
    pictures,
    table,
    titled,
)

DTYPES = ("float32", "bfloat16")


def scaling(loop: bool) -> str:
    """Picture and lines of the head or the loop, for each machine that has them."""
    part, parts = "loop" if loop else "head", []
    for isa, document in by_machine("scaling"):
        machine = MACHINES[isa]
        parts += [
            f"{machine} (`scaling-{isa}.json`):\n",
            picture(f"scaling-{part}-{isa}", f"Scaling of the {part}, {machine}"),
            lines(document, loop),
        ]
    return "\n".join(filter(None, parts))


def lines(document: Document, loop: bool) -> str:
    """What was fitted."""
    columns = ["of", "dtype", "time", "a, ms", "b, ms", "residual, RMS", "worst"]
    rows = [
        [
            f"{fit['workload']}, {UNITS[fit['unit']]}",
            fit["dtype"],
            f"a + b {fit['quantity']}".replace(" 1/", " / "),
            *(f"{fit[name]:.3g}" for name in ("intercept", "slope")),
            *(percent(fit[name], 1) for name in ("rms", "worst")),
            f"{fit['exponent']:.2f}",
        ]
        for fit in document["fits"]
        if (fit["workload"] != "head") is loop
    ]
    return table([*columns, "exponent at the end"], rows)


def roofline() -> str:
    return "\n".join((pictures("roofline"), of_each_machine("roofline", kernels)))


def kernels(where: str, document: Document) -> str:
    columns = ["op", "sizes", "dtype", "backend", "µs", "FLOP a byte", "GFLOP/s", "GB/s"]
    rows = [
        [
            *(f"`{row['op']}`", row["case"], row["dtype"]),
            *(row["backend"], f"{row['us_p20_p50_p80'][1]:,.0f}"),
            *(f"{row[name]:.3g}" for name in ("flops_a_byte", "gflops_a_second", "gb_a_second")),
        ]
        for row in document["rows"]
    ]
    return titled(where, table(columns, rows))


def parts() -> str:
    return of_each_machine("transformers", parts_of_a_machine)


def parts_of_a_machine(where: str, document: Document) -> str:
    """Where the time of an iteration goes."""
    rows = []
    for row in document["rows"]:
        for part in row["parts"]:
            cells = [row["workload"], part["part"], f"{part['ms']:.2f}"]
            rows.append([*cells, percent(part["share_of_peak"])])
        total = sum(part["ms"] for part in row["eager"])
        rows.append([row["workload"], "plain PyTorch, all", f"{total:.2f}", ""])
    title = f"{where}, fastest product {document['peak_flops'] / 1e9:.0f} GFLOP/s"
    return titled(title, table(["workload", "part", "ms", "of peak"], rows))


def device_work() -> str:
    """Operations, copies and waits of each backend."""
    columns = ["who", "a step, float32", "bfloat16", "an iteration, float32"]
    rows = []
    for row in read("device-work")["rows"]:
        steps, iteration = row["step"], row["iteration"] or {}
        cells = [row["who"], *(str(steps.get(d, {}).get("operations", "")) for d in DTYPES)]
        cells += [f"{iteration['operations']:,}" if iteration else ""]
        rows.append([*cells, *(str(steps["float32"][kind]) for kind in ("copies", "waits"))])
    return table([*columns, "copies a step", "waits"], rows)
