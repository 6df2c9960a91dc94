"""Models whose head isn't MAR's: what `accelerate` knows of each, one file a family."""

from marfast.drop_in.heads.loop import FastLoop
from marfast.drop_in.heads.ming_univision import FastMingForward, FastMingSample
from marfast.drop_in.heads.nextstep import FastNextStepSample, FastOmniNextStepSample
from marfast.drop_in.heads.pocket_tts import FastPocketForward
from marfast.drop_in.heads.sphere_ar import (
    FastBitDanceSample,
    FastSphereForward,
    FastSphereSample,
)
from marfast.drop_in.heads.vibevoice import FastVibeVoiceForward, FastVibeVoiceSample
from marfast.drop_in.methods import FastForward

FORWARDS: tuple[type[FastForward], ...] = (
    FastMingForward,
    FastPocketForward,
    FastSphereForward,
    FastVibeVoiceForward,
    FastForward,
)
"""Of heads: the first whose kind a module is like is the one that replaces its `forward`."""

LOOPS: tuple[type[FastLoop], ...] = (
    FastNextStepSample,
    FastOmniNextStepSample,
    FastBitDanceSample,
    FastSphereSample,
    FastMingSample,
    FastVibeVoiceSample,
)
"""Of models' own sampling: the first whose arguments and parts a module has."""
