"""Loads the pipeline that a command is given, with errors in one sentence."""

import torch
from diffusers import DiffusionPipeline


def load_model(
    pipeline_class: type[DiffusionPipeline], model: str, device: str | None = None, dtype: str = "float32"
) -> DiffusionPipeline:
    """
    The pipeline of `--model` on `--device`.

    Args:
        pipeline_class (`type`): what it must be.
        model (`str`): a folder, or a repository of the Hub.
        device (`str`, *optional*): where it runs, by default a GPU if there is one.
        dtype (`str`): `"float32"`, `"float16"` or `"bfloat16"`.

    Raises:
        ValueError: naming the option, if there is no such pipeline or no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} can't be used: {str(error).splitlines()[0]}") from error
    try:
        pipeline = pipeline_class.from_pretrained(model, dtype=getattr(torch, dtype))
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--model {model} is no {pipeline_class.__name__}: {reason}") from error
    return pipeline.to(device)
