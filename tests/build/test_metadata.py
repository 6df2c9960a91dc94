"""What the package says of itself where it is published."""

import os
import re
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.build.tree import BUILD_INPUTS, ROOT, copy_repository

LINK = re.compile(r"(!?)\[[^\[\]]*\]\(([^)]+)\)")
ADDRESS = "https://example.org/somebody/marfast"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "tree", *BUILD_INPUTS)


def metadata(tree: Path) -> Message:
    """A wheel's, without building it."""
    (tree / "out").mkdir()
    code = "from setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('out')"
    environment = os.environ | {"MARFAST_BUILD_NATIVE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [file] = tree.glob("out/*.dist-info/METADATA")
    return Parser().parsestr(file.read_text())


def links(message: Message) -> list[tuple[str, str]]:
    assert message["Description-Content-Type"] == "text/markdown"
    found = LINK.findall(message.get_payload())
    assert found
    return found


def test_no_link_leads_nowhere(tree: Path) -> None:
    assert all(target.startswith("https://") for _, target in links(metadata(tree)))


def test_links_lead_to_the_repository_once_it_is_published(tree: Path) -> None:
    project = tree / "pyproject.toml"
    told = f'[project.urls]\nSource = "{ADDRESS}"'
    project.write_text(project.read_text().replace("[project.urls]", told))
    message = metadata(tree)
    assert f"Source, {ADDRESS}" in message.get_all("Project-URL", [])
    into = [(p, t.removeprefix(ADDRESS)) for p, t in links(message) if t.startswith(ADDRESS)]
    assert len(into) > 20
    for picture, target in into:
        path = target.removeprefix("/raw/HEAD/" if picture else "/blob/HEAD/")
        assert (ROOT / path).is_file(), target


def test_wheels_are_made_for_every_python_that_is_named() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r"Programming Language :: Python :: 3\.(\d+)", text)
    built = re.search(r"^build = \"(.*)\"$", text, re.MULTILINE)
    assert built is not None
    assert built[1].split() == [f"cp3{minor}-*" for minor in named]
