"""Generative adversarial networks that make images from noise: what train_gan.py trains."""
