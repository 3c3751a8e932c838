# ruff: noqa: F403
# The rooms. The `__init__` of each lists its public names.

from .converters import *
from .data import *
from .demo import *
from .guiders import *
from .hub import *
from .likelihoods import *
from .losses import *
from .metrics import *
from .models import *
from .pipelines import *
from .schedulers import *
from .training import *

__version__: str
