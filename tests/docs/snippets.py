"""The blocks of code in the documents."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]

_BLOCK = re.compile(r"(<!-- tested: \S+ -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """A page's blocks in a language, but for those that say which test of their own they have."""
    text = page.read_text("utf-8")
    return [code for own, name, code in _BLOCK.findall(text) if name == language and not own]


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def inline(page: Path) -> list[str]:
    """What stands in backquotes in a page's text."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]
