import pytest
import torch

from diffusers_ext.metrics import linear_probe_accuracy, retrieval_recall


def test_recall_counts_queries_with_a_right_candidate_among_the_best():
    similarities = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.3, 0.1]])
    matches = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 1]]).bool()
    assert retrieval_recall(similarities, matches, 1) == pytest.approx(1 / 3)
    assert retrieval_recall(similarities, matches, 2) == 1


@pytest.mark.parametrize(
    "matches, k, message",
    [
        (torch.ones(2, 2), 1, r"There are \(2, 3\) similarities, but \(2, 2\) matches"),
        (torch.tensor([[True] * 3, [False] * 3]), 1, "at least one right candidate"),
        (torch.ones(2, 3).bool(), 4, "k must be from 1 to 3"),
    ],
)
def test_what_is_no_retrieval_is_refused(matches, k, message):
    with pytest.raises(ValueError, match=message):
        retrieval_recall(torch.rand(2, 3), matches, k)


def test_a_linear_probe_separates_what_a_line_separates():
    features = torch.randn((80, 3), generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] * 1000 + 5 > 5).long()
    scaled = features * torch.tensor([1e-3, 10.0, 1e3]) + 7  # it standardises
    assert linear_probe_accuracy(scaled[:60], labels[:60], scaled[60:], labels[60:]) >= 0.9
