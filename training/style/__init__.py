"""Style transfer by feed-forward networks (train_style.py)."""
