"""The sampler of each of a generation's iterations."""

from marfast.checkpoints import Settings
from marfast.model.mar import FastMAR
from marfast.model.schedule import Sampling, Schedule
from marfast.reference.respacing import steps_of_iterations


def sampling_of(settings: Settings) -> Sampling:
    """Their sampler."""
    return Sampling(settings.sampler, settings.eta, settings.guidance_interval)


def schedules_of(model: FastMAR, settings: Settings, own: bool = False) -> list[Schedule]:
    """One for each of the K iterations; `own`: over the steps that the module was built with."""
    steps = steps_of_iterations(settings.steps, settings.num_iter)
    return [
        model.schedule(None if own else of_iteration, sampling_of(settings))
        for of_iteration in steps
    ]
