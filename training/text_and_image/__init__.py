"""What recipes share that train networks of text and images from the start, such as CLIP."""
