"""The commands in the documents are such that the programs which they name would take them."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from marfast.cli.app import app
from tests.docs.snippets import PAGES, ROOT, blocks, inline, pages_with

PROGRAM = typer.main.get_command(app)
ASSIGNMENT = re.compile(r"\w+=.*")
OTHERS = {
    *("addr2line", "c++", "callgrind_annotate", "cibuildwheel", "cut", "echo", "grep"),
    *("head", "hf", "perf", "rm", "sort", "uniq", "vllm"),
}
"""Nobody's here, and run by no test."""


def lines(block: str) -> list[list[str]]:
    """A shell block's commands, those of a pipe apart, without comments."""
    words = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    commands: list[list[str]] = []
    for line in filter(None, words):
        commands.append([])
        for word in line:
            if word in ("|", "&&"):
                commands.append([])
            else:
                commands[-1].append(word)
    return commands


def check(command: list[str]) -> None:
    """Raises AssertionError for one that can't be meant."""
    while command and ASSIGNMENT.fullmatch(command[0]):
        command = command[1:]
    if "-m" in command[1:]:  # of python, torchrun, srun and Nsight's tools
        at = command.index("-m")
        check_module(command[at + 1], command[at + 2 :])
    elif command[0] == "marfast":
        parse(command[1:])
    elif command[0] == "make":
        known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        targets = [word for word in command[1:] if not ASSIGNMENT.fullmatch(word)]
        assert {*targets} <= {*known}, command
    elif command[0] == "pip":
        check_pip(command[1:])
    elif command[0] == "python":
        options = [] if command[1] == "setup.py" else command[2:]  # the others are setuptools'
        check_options(ROOT / command[1], options)
    else:
        assert command[0] in OTHERS, command


def check_module(name: str, arguments: list[str]) -> None:
    if name == "marfast":
        return parse(arguments)
    spec = find_spec(name)
    assert spec is not None, name
    check_options(Path(str(spec.origin)), arguments)


def check_options(script: Path, arguments: list[str]) -> None:
    source = script.read_text("utf-8")
    for word in arguments:
        option = word.partition("=")[0]
        assert not option.startswith("--") or f'"{option}"' in source, (script, option)


def parse(arguments: list[str]) -> None:
    """By the program's own parser; nothing is run."""
    if arguments[0].startswith("--"):  # which would act at once
        assert arguments[0] in {name for option in PROGRAM.params for name in option.opts}
        return
    try:
        context = PROGRAM.make_context("marfast", [*arguments])
        name, command, rest = PROGRAM.resolve_command(context, [*arguments])
        inner = command.make_context(name, rest, parent=context)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise AssertionError(error.format_message()) from None
    if name == "profile" and not inner.params["command"].endswith(".py"):
        parse([inner.params["command"], *inner.args])


def check_pip(arguments: list[str]) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    text = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = {*re.findall(r"^(\w+) = ", text, re.MULTILINE)}
    for word in arguments:
        if extra := re.fullmatch(r"marfast\[(.*)\]", word):
            assert {*extra[1].split(",")} <= known, word


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda page: page.name)
def test_commands_in_blocks(page: Path) -> None:
    for block in blocks(page, "sh"):
        for command in lines(block):
            check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text(page: Path) -> None:
    """What follows `marfast` may be a sketch, but its options exist."""
    for text in inline(page):
        if re.match("(python -m marfast|marfast|marfast profile .*) [a-z]", text):
            name, *words = text.partition("marfast ")[2].split()
            command = PROGRAM.commands[name]
            if name == "profile":
                continue
            known = {option for parameter in command.params for option in parameter.opts}
            given = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
            assert given <= known | {"--help"}, text


@pytest.mark.parametrize(
    "command",
    [
        "marfast generate --label 3 --out 3.png",
        "marfast profile generate --lables 3 --out 3.png",
        "torchrun --nproc-per-node 8 -m marfast sample --number 3 --out images/",
        "marfast bench --rounds many",
        "marfast paint",
        "python -m benchmarks.studies.training --originals mar",
        "python -m benchmarks.studies.nothing",
        "make tests",
        "pip install 'marfast[everything]'",
        "python setups.py build_ext",
        "python examples/edit.py --picture in.png --out edits/",
        "unheard of",
    ],
)
def test_what_nobody_would_take_is_noticed(command: str) -> None:
    with pytest.raises((AssertionError, FileNotFoundError)):
        check(shlex.split(command))
