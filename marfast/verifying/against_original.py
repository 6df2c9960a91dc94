"""The rows of `marfast verify --original`: every case in both implementations, side by side."""

from collections.abc import Callable, Collection
from pathlib import Path

from marfast.errors import ArgumentError
from marfast.verifying.case import outcome, reference
from marfast.verifying.cases import all_cases
from marfast.verifying.compare import difference
from marfast.verifying.original import RunningOriginal
from marfast.verifying.report import Difference, Row

SOURCE = "marfast.verifying.cases"


def rows(
    checkout: Path,
    only: Collection[str] | None,
    threads: int,
    progress: Callable[[str, int, int], None],
) -> tuple[Row, ...]:
    """A row for each kind of case; ArgumentError if `only` names one that there isn't."""
    cases = all_cases()
    known = list(dict.fromkeys(case.what for case in cases))
    if only is not None and (unknown := set(only) - set(known)):
        allowed = f"allowed are {', '.join(known)}"
        raise ArgumentError("only", ", ".join(sorted(unknown)), allowed)
    chosen = [i for i, case in enumerate(cases) if only is None or case.what in only]
    found: dict[str, list[Difference | None]] = {cases[i].what: [] for i in chosen}
    implementation = reference()
    with RunningOriginal(checkout, SOURCE, chosen, threads) as original:
        for done, index in enumerate(chosen):
            case = cases[index]
            progress(case.what, done, len(chosen))
            apart = difference(outcome(case, implementation), original.result(index))
            found[case.what].append(Difference(case.name, *apart) if apart else None)
    table = []
    for what, results in found.items():
        differences = tuple(d for d in results if d is not None)
        table.append(Row(what, len(results), len(results) - len(differences), differences))
    return tuple(table)
