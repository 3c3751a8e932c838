"""Models with buffers, such as codebooks and batch statistics, which can't be offloaded to the disk."""

from diffusers import ModelMixin


class DiskOffloadMixin:
    """Refuses a `device_map` that places buffers on the disk: diffusers would replace them by their initial values."""

    @classmethod
    def _load_pretrained_model(cls, model: ModelMixin, *args, device_map: dict | None = None, **kwargs):
        on_disk = [module for module, device in (device_map or {}).items() if device == "disk"]
        buffers = model.state_dict().keys() - {name for name, _ in model.named_parameters()}
        for name in sorted(buffers):
            if any(module == "" or f"{name}.".startswith(f"{module}.") for module in on_disk):
                raise ValueError(
                    f"{cls.__name__} can't be offloaded to the disk with its buffer `{name}`, which would be lost: "
                    "place the module that has it on the CPU or another device in `device_map`, or raise `max_memory`."
                )
        return super()._load_pretrained_model(model, *args, device_map=device_map, **kwargs)
