"""The page of a pipeline, made with Gradio of the actions of its panel."""

import logging
import os
import tempfile
from types import ModuleType
from typing import Any

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.demo.gradio_module import import_gradio
from diffusers_ext.demo.panel import Action, Limits, Made, Panel
from diffusers_ext.demo.panels import panel_for
from diffusers_ext.pipelines.films import write_film


logger = logging.getLogger(__name__)

# One at a time: what a call leaves in a pipeline and in its scheduler would disturb another one.
QUEUE = "pipeline"
FRAMES_PER_SECOND = 12
KEPT = 3600  # seconds that uploads and pictures stay on the server
SMALL = 160  # pictures with shorter sides than this are shown with square pixels
STYLE = ".square-pixels img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain; }"


def build_demo(pipeline: DiffusionPipeline, title: str | None = None, limits: Limits | None = None) -> Any:
    """
    The page of a pipeline.

    Args:
        pipeline ([`DiffusionPipeline`]): any pipeline of this package or of diffusers.
        title (`str`, *optional*): the heading, by default the class of the pipeline.
        limits ([`Limits`], *optional*): what one visit may ask for.

    Returns:
        `gradio.Blocks`: for [`serve_demo`], or for an app of yours.

    Raises:
        ImportError: without Gradio.
    """
    gradio = import_gradio()
    panel = panel_for(pipeline, limits)
    title = title or type(pipeline).__name__
    actions = panel.actions()
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown(f"# {title}")
        if len(actions) == 1:
            _show(gradio, panel, actions[0])
        else:
            for action in actions:
                with gradio.Tab(action.title):
                    _show(gradio, panel, action)
    return page


def _show(gradio: ModuleType, panel: Panel, action: Action) -> None:
    """The controls of an action on the left, and what it makes on the right."""
    components = {}
    with gradio.Row():
        with gradio.Column(scale=2):
            for name, control in action.controls.items():
                if not control.is_advanced:
                    components[name] = control.component(gradio)
            advanced = {name: control for name, control in action.controls.items() if control.is_advanced}
            if advanced:
                with gradio.Accordion("More", open=False):
                    components |= {name: control.component(gradio) for name, control in advanced.items()}
            button = gradio.Button("Make", variant="primary")
        with gradio.Column(scale=3, elem_classes="square-pixels" if _is_small(panel) else None):
            # Labels would cover a corner of the pictures.
            look = {"show_label": False, "format": "png", "interactive": False}
            outputs = [gradio.Markdown(visible=False)]
            if action.compares:
                outputs.append(gradio.ImageSlider(label="Before and after", **look))
            if action.films:
                outputs.append(gradio.Image(label="Film", height=240, **look | {"format": "gif", "type": "filepath"}))
            buttons = ["download", "download_all", "fullscreen"]
            gallery = gradio.Gallery(label="Pictures", columns=4, object_fit="contain", buttons=buttons, **look)
            outputs.append(gallery)
    for component in components.values():
        # Gradio would read values by its own rules, and open uploads without limits: the controls read them.
        component.preprocess = _as_sent

    def run(*sent, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008, Gradio finds it there
        try:
            values = {name: action.controls[name].read(value) for name, value in zip(components, sent, strict=True)}
            made = action.make(**values)
        except Exception as error:  # whatever happens, the visitor sees a sentence, and the operator the rest
            raise gradio.Error(_sentence(error), print_exception=False) from error
        return _outputs(gradio, action, made)

    name = action.title.lower().replace(" ", "_")
    options = {"fn": run, "inputs": list(components.values()), "outputs": outputs, "concurrency_limit": 1}
    options |= {"concurrency_id": QUEUE, "show_progress_on": gallery}
    button.click(api_name=name, **options)
    if action.is_live:
        for component in components.values():
            if isinstance(component, gradio.Slider):
                component.release(api_visibility="private", trigger_mode="always_last", **options)


def _as_sent(value: Any) -> Any:
    return value


def _is_small(panel: Panel) -> bool:
    sides = [side for side in getattr(panel.pipeline, "image_shape", ())[1:] if side is not None]
    return max(sides, default=SMALL) < SMALL


def _sentence(error: Exception) -> str:
    """What a visitor is told. Other errors than those of input may name files of the server: they go to the log."""
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    logger.error("an action of the demo failed", exc_info=error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "The server has not enough memory for this: make fewer or smaller pictures."
    return "The server could not do this; its log says why."


def _outputs(gradio: ModuleType, action: Action, made: Made) -> list:
    """What Gradio shows, in the order of the components."""
    shown = [gradio.update(value=made.note, visible=bool(made.note))]
    if action.compares:
        shown.append(made.pair)
    if action.films:
        shown.append(_write_film(made.film))
    shown.append(list(zip(made.pictures, made.captions, strict=True)))
    return shown


def _write_film(frames: list) -> str:
    """The path of a film, in the folder whose files Gradio serves and deletes."""
    folder = tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR"))
    path = os.path.join(folder, "film.gif")
    write_film(frames, path, FRAMES_PER_SECOND)
    return path
