"""Tables and pictures as a page has them."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.studies import IMAGES
from benchmarks.studies.sources import MACHINES, Document, by_machine

NOT_YET = "Not measured yet.\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def titled(title: str, body: str) -> str:
    return f"{title}:\n\n{body}"


def of_each_machine(name: str, section: Callable[[str, Document], str]) -> str:
    """A section of each machine that has such results; it is told what they are of."""
    return "\n".join(
        section(f"{MACHINES[isa]} (`{name}-{isa}.json`)", document)
        for isa, document in by_machine(name)
    )


def picture(name: str, text: str) -> str:
    """Empty where there is none."""
    return f"![{text}](images/{name}.png)\n" if (IMAGES / f"{name}.png").exists() else ""


def pictures(*names: str) -> str:
    """Those that exist, machine by machine."""
    found = [
        picture(f"{name}-{isa}", f"{name}, {machine}")
        for name in names
        for isa, machine in MACHINES.items()
    ]
    return "\n".join(filter(None, found))


def percent(share: float | None, digits: int = 0) -> str:
    """Empty where it isn't known."""
    return "" if share is None else f"{100 * share:.{digits}f} %"
