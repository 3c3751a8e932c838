"""Single definitions of modules, without the imports of the modules."""

import subprocess
import sys

import pytest

from diffusers_ext.on_demand import Names, definition


SOURCE = '''
"""A module."""
from __future__ import annotations

import nowhere
from nowhere import Missing
from json import dumps as write
from dataclasses import dataclass, field

SIZES = [1, 2]
SIZES += [3]
TABLE: dict[str, Missing] = {"b": 2}
LIST, REST = sorted(TABLE), ()


def decorate(f):
    return f


def total(of: Missing = SIZES) -> Missing:
    return sum(of) + offset()


def offset():
    return len(LIST)


class Base:
    def method(self, other: Missing) -> Missing:
        return nowhere.call(other)


@dataclass
class Derived(Base):
    """A class."""

    size: int = total()
    table: dict = field(default_factory=lambda: dict(TABLE))

    @property
    def text(self) -> str:
        return write(self.table)


def __getattr__(name):
    raise AttributeError(name)
'''


@pytest.fixture
def names():
    return Names("made_up", SOURCE)


def test_only_what_is_used_is_executed(names):
    derived = names["Derived"]()
    assert (derived.size, derived.text, derived.__doc__) == (7, '{"b": 2}', "A class.")
    assert "nowhere" not in names and "Missing" not in names and "decorate" not in names
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        derived.method(0)  # imported when it is used


def test_a_name_is_made_once_and_in_the_order_of_its_statements(names):
    assert names["SIZES"] == [1, 2, 3] and names["SIZES"] is names["SIZES"]
    assert names["REST"] == () and names["__doc__"] == "A module."


def test_unknown_names(names):
    with pytest.raises(ModuleNotFoundError, match="made_up"):
        names["unknown"]


def test_definitions_of_the_package_need_no_torch():
    code = (
        "from diffusers_ext.on_demand import definition as d\n"
        "config = d('diffusers_ext.training', 'TrainingConfig')()\n"  # by the stub of the room
        "assert config.size == (64, 64) and config.known_metrics[0] == 'fid'\n"
        "assert d('diffusers_ext.metrics', 'METRICS') == d('diffusers_ext.metrics.compute', 'METRICS')\n"
        "import sys; assert 'torch' not in sys.modules and 'yaml' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_packages_are_imported():
    assert definition("json", "dumps") is __import__("json").dumps
    with pytest.raises(AttributeError):
        definition("json", "nothing")
