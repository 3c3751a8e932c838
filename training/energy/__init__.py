"""What recipes of energy-based models share."""
