"""Colours for the classes of label maps."""


def default_palette() -> list[tuple[int, int, int]]:
    """The 256 colours of Pascal VOC, which are easy to distinguish: the bits of a label go to alternate channels."""
    palette = []
    for label in range(256):
        colour = [0, 0, 0]
        for bit in range(8):  # bits 0, 3 and 6 are the highest bits of red, and so on
            colour[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
        palette.append(tuple(colour))
    return palette
