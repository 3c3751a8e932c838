"""Gradio, which is no dependency of this package, and its import takes seconds: so it is imported when it is used."""

import os
from types import ModuleType


def import_gradio() -> ModuleType:
    """
    Gradio, without its messages to its makers.

    Raises:
        ImportError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError('The demo needs Gradio: pip install "diffusers_ext[demo]".') from error
    return gradio
