"""A page in the browser for a pipeline: `python -m diffusers_ext.demo outputs/digits`.

A pipeline gets the panel that names its class, or the nearest of its base classes. Each file in `panels/` defines one,
as `PANEL`, and nothing else lists them: to add a panel, add a file. Pipelines that no panel names get controls from
the signature of their `__call__`.

Panels and controls do not know Gradio. `page.py` makes a page of them, and `server.py` serves it. Gradio is imported
when a page is made, and not before.
"""

from diffusers_ext.exports import lazy_attributes


__getattr__, __dir__ = lazy_attributes(__name__)
