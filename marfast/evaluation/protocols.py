"""Named ways to measure: who looks, how many images, which settings. Figures of two protocols are
never comparable, so each figure comes with the name of its own."""

from dataclasses import asdict, dataclass
from typing import Any

from marfast.checkpoints import Preset, Settings
from marfast.checkpoints.presets import MAR_PRESETS
from marfast.errors import ArgumentError
from marfast.evaluation.run import Run


@dataclass(frozen=True)
class Protocol:
    """`distance` is what its Fréchet distance is called; `inception` says whether the judge is
    Inception, whose weights and whose statistics of real images come from files."""

    name: str
    inception: bool
    distance: str
    count: int
    """Images; where `strict`, no other number is this protocol."""
    strict: bool = False
    changes: tuple[tuple[str, Any], ...] = ()
    """To the paper's settings, where `strict`."""

    def settings(self, preset: Preset) -> Settings | None:
        """What it samples a model with, if it says so. ArgumentError, naming `protocol`, for a
        model that it isn't for."""
        if not self.strict:
            return None
        if preset.name not in MAR_PRESETS:
            raise ArgumentError(
                "protocol", f"{self.name} is the paper's for {', '.join(MAR_PRESETS)}"
            )
        chosen = MAR_PRESETS[preset.name].settings
        return chosen.replace(preset.architecture.seq_len, **dict(self.changes))

    def check(self, run: Run) -> None:
        """ArgumentError, naming `protocol`, for a run that it isn't about."""
        if not self.strict:
            return
        if run.model not in MAR_PRESETS:
            raise ArgumentError(
                "protocol", f"{self.name} is the paper's for {', '.join(MAR_PRESETS)}"
            )
        known = MAR_PRESETS[run.model]
        wanted = {"count": self.count} | asdict(self.settings(known) or known.settings)
        found = {"count": run.count} | asdict(run.settings)
        differ = [f"{name} {found[name]}" for name in wanted if found[name] != wanted[name]]
        if differ:
            allowed = ", ".join(
                f"{name} {wanted[name]}" for name in wanted if found[name] != wanted[name]
            )
            given = f"{self.name} isn't how these images were made: {', '.join(differ)}"
            raise ArgumentError("protocol", given, f"it has {allowed}")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("fashion-mnist", False, "Fréchet distance", 10_000),
        Protocol("inception", True, "FID", 50_000),
        Protocol("mar", True, "FID", 50_000, strict=True),
        Protocol(
            "mar-unguided",
            True,
            "FID",
            50_000,
            strict=True,
            changes=(("cfg", 1.0), ("temperature", 0.95)),
        ),
    )
}


def protocol_of(name: str | None, model: str) -> Protocol:
    """The one of this name, or else the one for a model of this preset."""
    if name is None:
        name = "fashion-mnist" if model == "fashion-mnist" else "inception"
    if name not in PROTOCOLS:
        raise ArgumentError("protocol", repr(name), f"allowed are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
