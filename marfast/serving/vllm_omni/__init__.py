"""vLLM-Omni's plug-in: the entry point `vllm_omni.general_plugins` calls `register` in each of its
processes. VLLM_PLUGINS, which names the plug-ins that are wanted, leaves it out."""


def register() -> None:
    """NextStep-1.1 with its head by the ops, and MAR, as pipelines of vLLM-Omni's registry, which
    imports them when they are asked for."""
    from vllm_omni.diffusion.registry import register_diffusion_model

    register_diffusion_model("NextStep11Pipeline", f"{__name__}.nextstep", "NextStep11Pipeline")
    register_diffusion_model(
        "MARPipeline",
        f"{__name__}.mar",
        "MARPipeline",
        post_process_func_name="get_mar_post_process_func",
    )
