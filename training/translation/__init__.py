"""Image-to-image translation by adversarial networks (train_translation.py): from pairs, or between two domains."""
