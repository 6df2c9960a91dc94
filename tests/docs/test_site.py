"""The site is built without a warning, and has what it links to; so have the files of its pages."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

import marfast

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


class Page(HTMLParser):
    """What a page of HTML links to and shows, and the places in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.pictures: set[str] = set()
        self.places = {""}
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        for name, value in given:
            kind = {"href": self.links, "src": self.links, "id": self.places}.get(name)
            if kind is not None and value:
                kind.add(value)
            if (tag, name) == ("img", "src") and value:
                self.pictures.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site is built with Python 3.11 or later")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_link_and_picture_of_the_site_is_there(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    assert {site / f"{source.stem}.html" for source in ROOT.glob("docs/*.md")} <= {*pages}
    broken, shown = [], 0
    for file, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            places = pages[target].places if target in pages else {"", address.fragment}
            if not target.exists() or unquote(address.fragment) not in places:
                broken.append((file.name, link))
        for picture in page.pictures:
            Image.open(file.parent / picture).verify()
            shown += 1
    assert not broken
    assert shown == sum(len(re.findall(r"!\[", source.read_text("utf-8"))) for source in SOURCES)


def test_every_public_name_is_in_the_api(site: Path) -> None:
    def names(page: str) -> set[str]:
        return {place.rpartition(".")[2] for place in Page(site / f"api/{page}.html").places}

    modules = {*marfast._ROOMS, "__version__"}
    assert {*marfast.__all__} - modules <= names("marfast")
    for room in marfast._ROOMS:
        public = {*getattr(getattr(marfast, room), "__all__", ())}
        documented = public - {"PROTOCOLS", "RECIPES"}  # tables
        if public:  # bench has nothing
            assert documented <= names(room), room


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.name)
def test_links_between_files_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / link).is_file(), link
