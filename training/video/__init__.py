"""What recipes for films share."""
