"""Serves a page: to this machine unless told otherwise, and nothing of the machine but the page."""

import os
import tempfile
from typing import Any

from diffusers import DiffusionPipeline

from diffusers_ext.demo.body_limit import BodyLimit
from diffusers_ext.demo.gradio_module import import_gradio
from diffusers_ext.demo.page import STYLE, build_demo
from diffusers_ext.demo.panel import Limits


MOST_WAITING = 32  # visitors; more are told to come again


def serve_demo(
    pipeline: DiffusionPipeline,
    title: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: Limits | None = None,
    blocks: bool = True,
) -> Any:
    """
    Serves the page of a pipeline.

    Uploads and pictures are kept in a temporary folder, which is deleted when the process ends. No other file of the
    machine is served, and the server sends nothing to the network.

    Args:
        pipeline ([`DiffusionPipeline`]): any pipeline of this package or of diffusers.
        title (`str`, *optional*): the heading, by default the class of the pipeline.
        host (`str`): the address to listen at; `"0.0.0.0"` is every network of this machine.
        port (`int`, *optional*): by default the first free one from 7860 on.
        limits ([`Limits`], *optional*): what one visit may ask for.
        blocks (`bool`): whether to serve until the process is stopped. Otherwise it goes on in the background.

    Returns:
        `gradio.Blocks`: the page; its `local_url` is the address, and `close()` ends the service.

    Raises:
        ImportError: without Gradio.
        OSError: if the port is taken.
    """
    limits = limits or Limits()
    folder = tempfile.TemporaryDirectory(prefix="diffusers_ext_demo-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(folder.name)
    gradio = import_gradio()
    page = build_demo(pipeline, title, limits)
    page.temporary_folder = folder  # lives as long as the page
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    system_fonts = ["system-ui", "sans-serif"]  # Gradio's own come from the network
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        allowed_paths=[],
        max_file_size=limits.file_size,
        app_kwargs={"middleware": [BodyLimit.middleware(limits.file_size)]},
        theme=gradio.themes.Default(font=system_fonts, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        prevent_thread_lock=not blocks,
    )
    return page
