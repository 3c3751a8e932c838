"""Loads the pipeline of a demo without running code of its repository."""

import os

import diffusers
import torch
from diffusers import DiffusionPipeline

import diffusers_ext
from diffusers_ext.hub.pipeline_folders import refuse_single_file


def load_pipeline(name_or_path: str, device: str | None = None, dtype: str = "float32") -> DiffusionPipeline:
    """
    A pipeline of this package or of diffusers, from safetensors only.

    Args:
        name_or_path (`str`): a folder, or a repository of the Hub.
        device (`str`, *optional*): where it runs, by default a GPU if there is one.
        dtype (`str`): `"float32"`, `"float16"` or `"bfloat16"`.

    Raises:
        ValueError: if the class is neither of this package nor of diffusers.
        OSError: if there is no pipeline.
    """
    pipeline_class = check_pipeline(name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = pipeline_class.from_pretrained(name_or_path, dtype=getattr(torch, dtype), use_safetensors=True)
    return pipeline.to(device)


def check_pipeline(name_or_path: str) -> type[DiffusionPipeline]:
    """
    The class that loads a pipeline; for one of diffusers, [`DiffusionPipeline`].

    Raises:
        ValueError: if the class is neither of this package nor of diffusers.
        OSError: if there is no pipeline.
    """
    refuse_single_file(name_or_path)
    try:
        class_name = DiffusionPipeline.load_config(name_or_path)["_class_name"]
    except OSError as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{name_or_path} is no pipeline, or its training has not finished: {reason}") from error
    class_name = class_name[-1] if isinstance(class_name, list) else class_name
    pipeline_class = getattr(diffusers_ext.pipelines, class_name, None)
    if pipeline_class is None and not hasattr(diffusers, class_name):
        raise ValueError(
            f"{name_or_path} has the pipeline {class_name}, which neither diffusers_ext {diffusers_ext.__version__} "
            "nor diffusers has, and the demo runs no code of repositories: update diffusers_ext."
        )
    return pipeline_class or DiffusionPipeline


def name_of(name_or_path: str) -> str:
    """What the page is called: the name in the Hub, or that of the folder."""
    return os.path.basename(os.path.realpath(name_or_path)) if os.path.isdir(name_or_path) else name_or_path
