"""Families are found by listing subpackages, also those of other folders, and everything public follows from them."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
import torch

import diffusers_ext.converters as converters
from diffusers_ext.converters import convert_checkpoint
from diffusers_ext.converters.__main__ import build_parser, main, parse_option
from diffusers_ext.converters.listing import families
from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.models import LeNet


FAMILIES = families()
TOY = "diffusers_ext.converters.toy_origin"


@pytest.fixture
def toy(monkeypatch):
    """A family in a folder of this test, added without a change to any file of the package."""
    monkeypatch.setattr(converters, "__path__", [*converters.__path__, str(Path(__file__).parent / "elsewhere")])
    yield
    sys.modules.pop(TOY, None)
    vars(converters).pop("toy_origin", None)


def toy_weights(num_classes: int) -> dict[str, torch.Tensor]:
    network = LeNet(id2label={label: str(label) for label in range(num_classes)})
    return {f"toy.{key}": tensor for key, tensor in network.state_dict().items()}


def test_an_added_family_is_converted(toy, tmp_path):
    weights = toy_weights(3)
    torch.save(weights, tmp_path / "toy.pt")
    written = convert_checkpoint(tmp_path / "toy.pt", tmp_path / "out", "toy", "toy_3")
    assert written == f"LeNet in {tmp_path / 'out'}"
    for key, tensor in LeNet.from_pretrained(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, weights[f"toy.{key}"])


def test_the_command_has_an_added_family(toy, tmp_path, capsys):
    torch.save(toy_weights(10), tmp_path / "toy.pt")
    main([str(tmp_path / "toy.pt"), str(tmp_path / "out"), "--family", "toy"])
    assert capsys.readouterr().out.endswith("out, assuming num_classes=10.\n")
    shown = build_parser().format_help()
    assert "A toy becomes a LeNet.\n    options: num_classes\n    presets: toy_3" in shown
    assert "python -m diffusers_ext.converters --family toy toy.pt lenet --preset toy_3" in shown


def test_functions_of_an_added_family_are_exported(toy):
    assert converters.convert_toy is importlib.import_module(TOY).convert_toy
    assert "convert_toy" in converters.__all__ and "convert_toy" in dir(converters)


def test_options_of_an_added_family_are_checked(toy, tmp_path):
    torch.save(toy_weights(10), tmp_path / "toy.pt")
    for options, message in (
        ({"colour": "red"}, r"There is no argument 'colour'\. The known arguments are: num_classes\."),
        ({"num_classes": 0}, "`num_classes` must be a positive integer, but is 0"),
        ({"preset": "toy_4"}, "There is no preset 'toy_4' of toy: it must be one of toy_3"),
        ({"id2label": {0: "cat"}}, "toy does not become one"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(tmp_path / "toy.pt", tmp_path / "out", "toy", **options)
        assert not (tmp_path / "out").exists()


def test_without_its_folder_there_is_no_added_family():
    assert "toy" not in families() and "convert_toy" not in converters.__all__
    with pytest.raises(ValueError, match="There is no family 'toy': it must be one of"):
        convert_checkpoint("toy.pt", "out", "toy")
    for name in ("convert_toy", "nothing"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(converters, name)


def test_two_families_of_one_name_are_refused(toy, monkeypatch):
    origin = importlib.import_module(TOY)
    monkeypatch.setattr(origin, "FAMILIES", origin.FAMILIES * 2)
    with pytest.raises(ValueError, match="Two families are called 'toy'"):
        families()


def test_every_subpackage_is_an_origin():
    """A subpackage without families has a command of its own, as LoRA files have."""
    for module in pkgutil.iter_modules(converters.__path__):
        if module.ispkg:
            package = importlib.import_module(f"{converters.__name__}.{module.name}")
            assert package.FAMILIES or importlib.util.find_spec(f"{package.__name__}.__main__"), module.name


def test_origins_do_not_import_each_other():
    names = {module.name for module in pkgutil.iter_modules(converters.__path__) if module.ispkg}
    for name in names:
        for file in (Path(converters.__file__).parent / name).rglob("*.py"):
            for other in names - {name}:
                assert f"converters.{other}" not in file.read_text(), f"{file} imports {other}"


@pytest.mark.parametrize("name", FAMILIES)
def test_examples_are_commands(name):
    family = FAMILIES[name]
    arguments = build_parser().parse_args(["--family", name, *family.example.split()])
    assert arguments.preset is None or arguments.preset in family.presets
    options = dict(map(parse_option, arguments.option))
    assert checked(options, family.options) == options


@pytest.mark.parametrize("family, preset", [(name, preset) for name in FAMILIES for preset in FAMILIES[name].presets])
def test_presets_are_options_of_their_kinds(family, preset):
    options = FAMILIES[family].presets[preset]
    accepted = checked(options, FAMILIES[family].options)
    assert plain(accepted) == plain(options)


def plain(options: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def test_public_functions_convert_state_dicts():
    functions = {function for family in FAMILIES.values() for function in family.functions}
    assert sorted(converters.__all__) == sorted(["convert_checkpoint", *(function.__name__ for function in functions)])
    for function in functions:
        assert getattr(converters, function.__name__) is function
        assert function.__doc__ and function.__name__.startswith("convert_")
