"""A LeNet that classifies the digits of MNIST."""

from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_lenet import LeNet


MODULES = {
    "convnet.c1": "conv1",
    "convnet.c3": "conv2",
    "convnet.c5": "conv3",
    "fc.f6": "fc1",
    "fc.f7": "fc2",
}


def convert_mnist_lenet(state_dict: StateDict, **config) -> LeNet:
    r"""
    The `LeNet5` of `mnist_classifier` in https://github.com/csinva/gan-vae-pretrained-pytorch, which takes images of
    1x32x32 in [0, 1].

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Must be empty, because the tensors show everything.

    Returns:
        [`LeNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if there are arguments.
    """
    checked(config, {})
    return load_converted(LeNet, {"id2label": {label: str(label) for label in range(10)}}, MODULES, state_dict)
