"""`marfast info`: what there is on this machine, and which backend of which op can run on it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from marfast import startup
from marfast.cli import options
from marfast.cli.console import echo, print_json, print_pairs, print_table
from marfast.cli.convert import report_pairs
from marfast.cli.errors import bad, check_environment, reported_as


def info(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="Show how this image, .npz or folder of images was made instead.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Show what is in this model's file instead; every weight is checked.",
        ),
    ] = None,
    preset: options.Preset = None,
    preset_template: Annotated[
        bool,
        typer.Option(
            "--preset-template",
            help="Print a config.json with every key and its default, or that of --preset, to be "
            "changed and given as --preset.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show which backend runs each op of a generation by --model (mar_base, mar_large "
            "and mar_huge need no file), and why not another. [of fashion-mnist unless told]",
        ),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --explain: images at a time. [default: 1]"),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16"] | None,
        typer.Option(help="With --explain: what products are computed in. [default: float32]"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="With --explain: cpu, cuda or cuda:N. [default: cpu]"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what this machine has and can run, or how an image of marfast's was made.

    Versions, devices, the native extension, which backend of which op can run here and why not, the
    embedded models with their settings, and the environment variables that matter.
    """
    shown = {"--preset-template": preset_template or None, "--explain": explain or None}
    for option, given in ({"--model": model, "--preset": preset} | shown).items():
        if file is not None and given is not None:
            raise bad(option, f"{file} is told of by itself; give one of them")
    if preset_template and (model is not None or explain):
        raise bad("--preset-template", "it goes with --preset alone")
    if explain and model is None:
        model = "fashion-mnist"
    if preset is not None and model is None and not preset_template:
        raise bad("--preset", f"{preset} says what a model's file holds; give --model, too")
    of_explain = {"--batch": batch, "--dtype": dtype, "--device": device}
    for option, wanted in of_explain.items():
        if wanted is not None and not explain:
            raise bad(option, f"{wanted} is for --explain; give that, too")
    if file is not None:
        _tell(file, as_json)
        return
    if preset_template:
        _print_template(preset)
        return
    with startup.importing():
        from marfast.checkpoints import inspect
        from marfast.cli.explain import print_choices
        from marfast.cli.machine import gather
    if explain and model is not None:
        print_choices(model, preset, batch or 1, dtype, device or "cpu", as_json)
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


def _tell(file: str, as_json: bool) -> None:
    with startup.importing():
        from marfast.generation.runs import read_provenance
    with reported_as("FILE", file="FILE"):
        said = read_provenance(Path(file).expanduser()).to_dict()
    if as_json:
        print_json(said)
        return
    settings, backends = said.pop("settings"), said.pop("backends")
    told = {name: value for name, value in said.items() if value or name == "seed"}
    told["settings"] = ", ".join(f"{name} {value}" for name, value in settings.items())
    told["backends"] = "; ".join(f"{op}: {', '.join(names)}" for op, names in backends.items())
    print_pairs([*told.items()])


def _print_template(preset: str | None) -> None:
    with startup.importing():
        from marfast.checkpoints import Architecture, Preset, get_preset
    with reported_as("--preset"):
        found = Preset(Architecture()) if preset is None else get_preset(preset)
    print_json(found.to_dict(), indent=2)


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
