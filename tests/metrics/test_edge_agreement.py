import pytest
import torch

from diffusers_ext.metrics.edge_agreement import edge_f1


def column(*places: int, size: int = 12) -> torch.Tensor:
    """Vertical lines."""
    edges = torch.zeros(1, size, size, dtype=torch.bool)
    edges[..., list(places)] = True
    return edges


@pytest.mark.parametrize(
    ("found", "reference", "tolerance", "f1"),
    [
        (column(3), column(3), 0, 1.0),
        (column(4), column(3), 0, 0.0),
        (column(4), column(3), 1, 1.0),
        (column(5), column(3), 1, 0.0),
        (column(3, 9), column(3), 1, 2 * 0.5 / 1.5),  # half of them are correct, and all edges are found
        (column(3), column(3, 9), 1, 2 * 0.5 / 1.5),
        (column(3), column(), 1, 0.0),
        (column(), column(3), 1, 0.0),
        (column(), column(), 1, 1.0),
        (column(4), column(3), None, 0.0),  # the default tolerance for 12 pixels is 0
        (column(51, size=100), column(50, size=100), None, 1.0),
        (column(52, size=100), column(50, size=100), None, 0.0),
    ],
)
def test_f1_by_hand(found, reference, tolerance, f1):
    both = torch.cat([found, reference])
    values = edge_f1(both, torch.cat([reference, reference]), tolerance)
    assert values.shape == (2,) and values.tolist() == pytest.approx([f1, 1.0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="the same shape"):
        edge_f1(column(3), column(3, size=13))
