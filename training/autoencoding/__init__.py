"""Autoencoders of images (train_autoencoder.py): plain, variational, vector-quantised, and for latent diffusion."""
