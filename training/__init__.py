"""Training: commands `train_<job>.py` with a recipe each, families of code that recipes share, and the training loop.

`__init__.pyi` lists what this room exports.
"""

from diffusers_ext.exports import lazy_attributes


__getattr__, __dir__ = lazy_attributes(__name__)
