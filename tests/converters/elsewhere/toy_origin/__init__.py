"""A made-up origin outside the package: its checkpoints hold the weights of a LeNet under other names."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.original_arguments import checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models import LeNet


ARGUMENTS = {"num_classes": positive_integer}


def convert_toy(state_dict: StateDict, **config) -> LeNet:
    num_classes = checked(config, ARGUMENTS).get("num_classes", 10)
    names = {label: str(label) for label in range(num_classes)}
    modules = {f"toy.{layer}": layer for layer in ("conv1", "conv2", "conv3", "fc1", "fc2")}
    return load_converted(LeNet, {"id2label": names}, modules, state_dict)


def _toy(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_toy(state_dict, **options)}, assumptions(options, {"num_classes": 10}))


FAMILIES = (
    Family(
        name="toy",
        description="A toy becomes a LeNet.",
        example="toy.pt lenet --preset toy_3",
        convert=_toy,
        options=ARGUMENTS,
        functions=(convert_toy,),
        presets={"toy_3": {"num_classes": 3}},
    ),
)
