"""A hook of mkdocs: pages of the site that are no files of docs/.

They are those of the root, with their links rewritten, and a page for each module of the API that
mkdocs.yml names.
"""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SHOWN = "{show_root_heading: true, show_root_toc_entry: true}"


def on_files(files: Files, config: Any) -> Files:
    pages = {page: as_page((ROOT / name).read_text("utf-8")) for name, page in FROM_ROOT.items()}
    [api] = (section["API"] for section in config.nav if "API" in section)
    for page, text in (pages | {page: api_page(Path(page).stem) for page in api}).items():
        files.append(File.generated(config, page, content=text))
    return files


def as_page(text: str) -> str:
    """A text of the root, with its links as they are from docs/."""

    def link(found: re.Match[str]) -> str:
        path = found[1].removeprefix("docs/")
        return f"]({FROM_ROOT.get(path, path)}"

    return re.sub(r"\]\(([\w./-]+)", link, text)


def api_page(name: str) -> str:
    """What the docstrings of marfast, or of a room of it, say.

    A function with the name of the file that it comes from is hidden by it from who reads files,
    and stands by itself.
    """
    module = name if name == "marfast" else f"marfast.{name}"
    text = f"# {module}\n\n::: {module}\n"
    room = import_module(module)
    for member in getattr(room, "__all__", ()):
        found = getattr(room, member)
        if not isinstance(found, ModuleType) and find_spec(f"{module}.{member}"):
            text += f"\n::: {found.__module__}.{member}\n    options: {SHOWN}\n"
    return text
