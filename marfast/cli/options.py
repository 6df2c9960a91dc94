"""Options that several commands have."""

from typing import Annotated, Literal

import typer

Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="What a model's file holds, if it does not say: mar_base, mar_large, mar_huge, an "
        "embedded model's name, or a config.json.",
    ),
]
Weights = Annotated[
    Literal["model_ema", "model"] | None,
    typer.Option(help="The entry of a .pth to take. [default: model_ema, if there]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
