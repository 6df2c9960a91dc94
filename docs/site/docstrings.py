"""An extension of griffe, which reads the docstrings: paragraphs of a function that begin with
`name: …`, or `name, name: …`, are a section of its arguments, whether or not `Args:` stands above.
"""

import re
import textwrap
from typing import Any

import griffe

NAMES = re.compile(r"(\w+(?:, \w+)*): ")


class Arguments(griffe.Extension):
    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring:
            known = {parameter.name for parameter in func.parameters}
            paragraphs = func.docstring.value.split("\n\n")
            func.docstring.value = "\n\n".join(sectioned(text, known) for text in paragraphs)


def sectioned(paragraph: str, known: set[str]) -> str:
    found = NAMES.match(paragraph)
    if found and known.issuperset(found[1].split(", ")):
        return "Args:\n" + textwrap.indent(paragraph, "    ")
    return paragraph
