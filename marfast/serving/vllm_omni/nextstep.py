"""vLLM-Omni's NextStep-1.1, whose head then samples a token in one op."""

import warnings
from typing import Any

from vllm_omni.diffusion.models.nextstep_1_1 import pipeline_nextstep_1_1 as own

from marfast.drop_in import accelerate

# which the registry looks for beside the pipeline
get_nextstep11_post_process_func = own.get_nextstep11_post_process_func


class NextStep11Pipeline(own.NextStep11Pipeline):  # type: ignore[misc]
    """vLLM-Omni's own, its `FlowMatchingHead.sample` replaced: same tokens within rounding, from
    the same draws. The first token tries it against vLLM-Omni's code (docs/drop_in.md)."""

    def __init__(self, *, od_config: Any, prefix: str = "") -> None:
        super().__init__(od_config=od_config, prefix=prefix)
        try:
            accelerate(self)
        except TypeError as error:
            warnings.warn(f"vLLM-Omni's own code runs: {error}", RuntimeWarning, stacklevel=2)
