"""Generative adversarial networks that make images from noise."""
