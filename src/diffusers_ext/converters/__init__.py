"""Original checkpoints in, classes of this package or of diffusers out. None yet."""
