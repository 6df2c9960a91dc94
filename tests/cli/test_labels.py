"""What `--labels` means, and what files are called."""

import pytest
import typer

from marfast.cli.labels import file_names, parse_labels

CLASSES = ("t-shirt", "trouser", "ankle boot", "7")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("3", [3]),
        ("0-3", [0, 1, 2, 3]),
        ("2-2", [2]),
        ("none", [None]),
        ("None, 1", [None, 1]),
        ("T-Shirt", [0]),
        ("t_shirt,t shirt", [0, 0]),
        ("ankle boot,ANKLE-BOOT,ankle_boot", [2, 2, 2]),
        ("3,0-1,trouser,none,3", [3, 0, 1, 1, None, 3]),
        ("007", [7]),
        ("7", [3]),  # a class's name comes first
        (" 1 , 2 ", [1, 2]),
    ],
)
def test_labels(text: str, labels: list[int | None]) -> None:
    assert parse_labels(text, 10, CLASSES) == labels


def test_names_beyond_the_classes_are_not_labels() -> None:
    with pytest.raises(typer.BadParameter):
        parse_labels("7", 3, CLASSES)


def test_many_names_are_not_listed() -> None:
    classes = [f"kind {i}" for i in range(1000)]
    with pytest.raises(typer.BadParameter, match="a name out of the 1000 in the model's config"):
        parse_labels("kind", 1000, classes)


def test_file_names() -> None:
    classes = ("t-shirt", "a/../b", "日本", "", "x" * 300)
    names = file_names([0, 1, 2, 3, 4, 5, None], classes, 7)
    kinds = ("t-shirt", "a-b", "日本", "class3", "x" * 40, "class5", "none")
    assert names == [f"{i:04}_{kind}_seed7.png" for i, kind in enumerate(kinds)]
    assert file_names([0] * 10001, classes, 0)[-1] == "10000_t-shirt_seed0.png"
