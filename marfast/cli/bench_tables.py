"""What `marfast bench` prints."""

from collections.abc import Sequence

from marfast.bench.results import Row
from marfast.bench.timing import AT_MOST_BUSY
from marfast.cli.console import echo, print_table


def print_rows(rows: Sequence[Row]) -> None:
    """A line for each of one case, then the phases of images."""
    table = []
    for row in rows:
        if "rows" in row:
            case, times = f"R = {row['rows']}", row["ms_a_step_p20_p50_p80"]
            shown = " ".join(f"{time:.3g}" for time in times) + " ms a step"
            rate, share = f"{row['tokens_a_second']:.4g} tokens/s", row["share_of_floor"]
        else:
            case, times = f"B = {row['batch']}, K = {row['iterations']}", row["seconds_p20_p50_p80"]
            shown = " ".join(f"{time:.3g}" for time in times) + " s"
            rate, share = f"{row['images_a_second']:.3g} images/s", None
        ratios = ", ".join(f"{ratio:.2f}x {who}" for who, ratio in row["ratio_to"].items())
        off = "" if row["difference"] is None else f"{row['difference']:.1e}"
        memory = "" if row["working_mb"] is None else f"{row['working_mb']:.0f} MB"
        floor = "" if share is None else f"{100 * share:.0f} %"
        table.append((row["workload"], case, row["who"], shown, rate, memory, ratios, floor, off))
    columns = ("workload", "case", "who", "p20 p50 p80", "rate", "memory", "speed against")
    print_table((*columns, "of floor", "verified: off by"), table)
    for row in rows:
        if "phases" in row:
            shares = row["share_of_floor"]
            parts = ", ".join(
                f"{name} {value:.3g} s"
                + (f" ({100 * shares[name]:.0f} % of floor)" if name in shares else "")
                for name, value in row["phases"].items()
            )
            case = f"B = {row['batch']}, K = {row['iterations']}"
            echo(f"{row['workload']}, {case}, {row['who']}: {parts}")
    echo()


def warn_if_busy(rows: Sequence[Row]) -> None:
    """Others' share of the machine, where it is worth a warning."""
    busy = max((row["others_took"] for row in rows), default=0.0)
    if busy > AT_MOST_BUSY:
        echo(
            f"warning: others took up to {100 * busy:.0f} % of this machine meanwhile",
            err=True,
        )
