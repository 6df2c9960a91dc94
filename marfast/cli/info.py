"""`marfast info`: what there is on this machine, and which backend of which op can run on it."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs, print_table
from marfast.cli.convert import report_pairs
from marfast.cli.errors import bad, check_environment, reported_as


def info(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Show what is in this model's file instead; every weight is checked.",
        ),
    ] = None,
    preset: options.Preset = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show which backend runs each op of a generation by --model (mar_base, mar_large "
            "and mar_huge need no file), and why not another.",
        ),
    ] = False,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --explain: images at a time.")
    ] = 1,
    dtype: Annotated[
        Literal["bfloat16", "float16"] | None,
        typer.Option(help="With --explain: what products are computed in. [default: float32]"),
    ] = None,
    device: Annotated[str, typer.Option(help="With --explain: cpu, cuda or cuda:N.")] = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Show what this machine has and can run.

    Versions, devices, the native extension, which backend of which op can run here and why not, the
    embedded models with their settings, and the environment variables that matter.
    """
    if explain and model is None:
        raise bad("--explain", "it explains a model's generation; give --model, too")
    if preset is not None and model is None:
        raise bad("--preset", f"{preset} says what a model's file holds; give --model, too")
    with startup.importing():
        from marfast.checkpoints import inspect
        from marfast.cli.explain import print_choices
        from marfast.cli.machine import gather
    if explain and model is not None:
        print_choices(model, preset, batch, dtype, device, as_json)
        return
    if model is not None:
        with reported_as("--model"):
            report = asdict(inspect(model, preset))
        if as_json:
            print_json(report)
        else:
            print_pairs(report_pairs(report))
        return
    check_environment()
    found = gather()
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    devices, extension = found["devices"], found["native"]
    pairs = [*found["versions"].items()]
    pairs.append(("cpu", f"{devices['cpu']}, {devices['logical_cpus']} logical CPUs"))
    pairs.append(("threads", devices["threads"]))
    pairs += [("gpu", name) for name in devices["gpus"]] or [("gpu", "none")]
    if extension["available"]:
        usable = ", ".join(extension["usable"])
        pairs.append(("kernels", f"{extension['instruction_set']} (usable here: {usable})"))
        pairs.append(("extension", f"{extension['file']} ({extension['compiler']})"))
    else:
        pairs.append(("kernels", f"none, everything runs in plain PyTorch: {extension['reason']}"))
    pairs += [(name, value) for name, value in found["environment"].items()]
    print_pairs(pairs)
    echo()
    rows = [
        (row["op"], row["device"], row["backend"], "yes" if row["can_run"] else "no", row["reason"])
        for row in found["backends"]
    ]
    print_table(("op", "device", "backend", "here", "why not"), rows)
    echo()
    for name, settings in found["models"].items():
        listed = ", ".join(f"{key} {value}" for key, value in settings.items())
        echo(f"model {name}: {listed}")
