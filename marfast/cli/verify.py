"""`marfast verify`: is what marfast computes what MAR means? Prints what `marfast.verify` finds."""

from typing import TYPE_CHECKING, Annotated

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_table, progress_bar
from marfast.cli.errors import bad, check_environment, reported_as

if TYPE_CHECKING:
    from marfast.verifying.report import OpRow, Report


def verify(
    original: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A checkout of LTH14/mar, to compare with bit for bit."),
    ] = None,
    approx: Annotated[
        bool,
        typer.Option("--approx", help="Instead: how far fewer steps and other samplers are off."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check marfast on this machine.

    Compares every backend of every op with the reference and with float64, or, with --original, the
    reference with the original's own code, bit for bit. Exit status 1 if anything is wrong.
    """
    if approx and original is not None:
        raise bad("--approx", "it is measured without --original")
    with startup.importing():
        from marfast.verifying import verify as gather
    check_environment()
    with reported_as("--original"), progress_bar("verifying") as progress:
        report = gather(original, approximations=approx, progress=progress)
    if as_json:
        print_json(report.to_dict())
    elif approx:
        _print_approximations(report)
    elif original is None:
        _print_ops(report)
    else:
        _print_comparison(report)
    if not report.ok:
        raise typer.Exit(1)


def _print_comparison(report: "Report") -> None:
    rows = [(row.what, row.cases, row.bit_equal, "yes" if row.ok else "NO") for row in report.rows]
    print_table(("what", "cases", "bit-equal", "ok"), rows)
    for row in report.rows:
        for difference in row.differences:
            echo(f"{row.what}, {difference.case}: {difference.detail}")
    equal = sum(row.bit_equal for row in report.rows)
    commit = report.commit or "changed, or another commit than the one that marfast follows"
    echo(f"{equal} of {report.cases} cases bit-equal")
    echo(f"original: {report.original} ({commit})")
    _print_end(report)


def _print_ops(report: "Report") -> None:
    columns = ("op", "backend", "dtype", "compared with", "bit-equal", "max ULP")
    errors = ("max error", "eager's", "RMS error", "eager's", "ok")
    print_table((*columns, *errors), [_cells(row) for row in report.ops])
    echo("Errors are against float64, relative to its RMS; eager's are plain PyTorch's.")
    wrong = sum(not row.ok for row in report.ops)
    verdict = f"{wrong} rows are wrong" if wrong else "all are as they should be"
    echo(f"{len(report.ops)} rows, {verdict}")
    _print_end(report)


def _print_approximations(report: "Report") -> None:
    columns = ("approximation", "RMS difference", "largest", "seen as asked")
    rows = [
        (row.name, f"{row.rms:.3f}", f"{row.largest:.2f}", f"{row.accuracy:.1%}")
        for row in report.approximations
    ]
    print_table(columns, rows)
    images = report.approximations[0].images
    echo(f"fashion-mnist, {images} images a row, pixels in [-1, 1]; exact is DDPM with 100 steps.")
    _print_end(report)


def _cells(row: "OpRow") -> tuple[str, ...]:
    where = "" if row.device == "cpu" else f" on {row.device}"
    op = f"{row.op}, {row.example}" if row.example else row.op
    named = (op, f"{row.backend} {row.isa or ''}".strip() + where, row.dtype)
    if row.reason is not None:
        return (*named, "", "", "", "", "", "", "", f"can't run: {row.reason}")
    errors = (row.error_max, row.eager_max, row.error_rms, row.eager_rms)
    shown = ("" if error is None else f"{error:.1e}" for error in errors)
    share = "" if row.bit_equal is None else f"{row.bit_equal:.1%}"
    bits = (row.compared_with or "", share, str(row.max_ulp))
    return (*named, *bits, *shown, "yes" if row.ok else "NO")


def _print_end(report: "Report") -> None:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    echo(f"{report.seconds:.1f} s, {versions}")
