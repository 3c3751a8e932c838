"""Text-to-image models built on Stable Diffusion 1.x, 2.x, XL and 3: fine-tuning, new subjects, new words, control."""
