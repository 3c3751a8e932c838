"""Weights of networks, as a whole."""

import hashlib

import torch


def weights_fingerprint(*networks: torch.nn.Module) -> str:
    """32 hexadecimal digits that identify the weights and buffers of networks, on whatever device they are."""
    content = hashlib.blake2b(digest_size=16)
    for network in networks:
        for name, tensor in network.state_dict().items():
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()
