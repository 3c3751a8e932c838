"""Which class a published pipeline has."""

from diffusers import DiffusionPipeline

import diffusers_ext
from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.pipelines import ClassConditionalPipeline


def find_pipeline_class(name: str, cache_dir: str | None, option: str | None = None) -> type[DiffusionPipeline]:
    """The class that a pipeline's folder names; pipelines of diffusers are loaded as class-conditional ones.

    Args:
        name (`str`): a folder, or a repository of the Hub.
        cache_dir (`str`, *optional*): where downloads are kept.
        option (`str`, *optional*): the option by which `name` was given, for errors.

    Raises:
        ValueError, OSError: if there is no pipeline.
    """
    refuse_single_file(name, option)
    try:
        class_name = DiffusionPipeline.load_config(name, cache_dir=cache_dir)["_class_name"]
    except OSError as error:
        given = name if option is None else f"{option} {name}"
        reason = " ".join(str(error).split())
        raise OSError(f"{given} is no pipeline, or its training has not finished: {reason}") from error
    class_name = class_name[-1] if isinstance(class_name, list) else class_name
    return getattr(diffusers_ext, class_name, ClassConditionalPipeline)


def load_pipeline(
    name: str, cache_dir: str | None, option: str, pipeline_class: type[DiffusionPipeline]
) -> DiffusionPipeline:
    """The pipeline that an option names.

    Args:
        name (`str`): a folder, or a repository of the Hub.
        cache_dir (`str`, *optional*): where downloads are kept.
        option (`str`): the option by which `name` was given, for errors.
        pipeline_class (`type`): the class that it must have.

    Raises:
        ValueError, OSError: naming the option, if there is no pipeline, or it has another class.
    """
    found = find_pipeline_class(name, cache_dir, option)
    if not issubclass(found, pipeline_class):
        raise ValueError(f"{option} {name} is no {pipeline_class.__name__}, but {found.__name__}.")
    return found.from_pretrained(name, cache_dir=cache_dir)
