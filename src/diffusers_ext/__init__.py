"""Deep generative imaging that Diffusers leaves out: pipelines, models, trainers and metrics, with its conventions.

Importing the package imports nothing else: each public name is imported from its room when it is first used. A room
exports its names in its own `__init__`, and `__init__.pyi` lists the rooms.
"""

from diffusers_ext.exports import lazy_attributes


__version__ = "0.2.0"

__getattr__, __dir__ = lazy_attributes(__name__)
