"""What `--labels` means, and `--label`."""

import re
from collections.abc import Sequence

from marfast import startup
from marfast.cli.errors import bad

NAMES_SHOWN = 20


def parse_labels(
    text: str, count: int, classes: Sequence[str], option: str = "--labels"
) -> list[int | None]:
    """Class indices from a list such as "3", "0-9", "sneaker", "0,3,bag" or "none" (None).

    Names are those of `classes`, however they are written.
    """
    with startup.importing():
        from marfast.generation.arguments import plain
    names = {plain(name): i for i, name in reversed([*enumerate(classes[:count])])}
    labels: list[int | None] = []
    for item in text.split(","):
        word = plain(item)
        ends = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word, re.ASCII)
        if word in names:
            labels.append(names[word])
        elif word == "none":
            labels.append(None)
        elif ends and int(ends[1]) <= int(ends[2] or ends[1]) < count:
            labels.extend(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
        else:
            raise bad(option, f"{item!r}; allowed are {_allowed(count, classes)}")
    return labels


def _allowed(count: int, classes: Sequence[str]) -> str:
    allowed = f"0 to {count - 1}, ranges such as 0-{count - 1}, none"
    if len(classes) > NAMES_SHOWN:
        return f"{allowed}, or a name out of the {len(classes)} in the model's config.json"
    return f"{allowed}, {', '.join(classes)}" if classes else allowed


def file_names(
    labels: Sequence[int | None], classes: Sequence[str], seed: int | Sequence[int]
) -> list[str]:
    """A name for each image: 0003_ankle-boot_seed0.png; class207 where names are unknown."""
    seeds = [seed] * len(labels) if isinstance(seed, int) else seed
    digits = max(4, len(str(len(labels) - 1)))
    names = [_part_of_name(label, classes) for label in labels]
    return [
        f"{i:0{digits}}_{name}_seed{seed}.png"
        for i, (name, seed) in enumerate(zip(names, seeds, strict=True))
    ]


def _part_of_name(label: int | None, classes: Sequence[str]) -> str:
    if label is None:
        return "none"
    name = classes[label] if label < len(classes) else ""
    return re.sub(r"\W+", "-", name).strip("-")[:40] or f"class{label}"
