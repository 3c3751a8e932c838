import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusers_ext.hub.alignment import align, aligned


def test_tensors_begin_where_they_would_in_memory(tmp_path):
    for length in range(1, 70, 9):
        file = tmp_path / f"{length}.safetensors"
        tensors = {"a" * length: torch.randn(3, 5), "b": torch.arange(4)}
        save_file(tensors, file, {"note": "kept"})
        content = file.read_bytes()
        align(file)
        assert file.read_bytes() == aligned(content) == aligned(aligned(content))
        header = int.from_bytes(file.read_bytes()[:8], "little")
        assert (8 + header) % 64 == 0
        found = load_file(file)
        assert all(torch.equal(found[name], value) for name, value in tensors.items())
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"note": "kept"}
    assert not list(tmp_path.glob(".*"))
