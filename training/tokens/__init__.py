"""What recipes share that train transformers of image tokens."""
