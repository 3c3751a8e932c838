"""Generative adversarial networks that make images from noise (train_gan.py)."""
