"""How well a score tells strange images from usual ones."""

import torch


def auroc(usual_scores, outlier_scores) -> float:
    """The area under the ROC curve: how often an outlier has a higher score than a usual image, ties counting half.

    Args:
        usual_scores, outlier_scores: scores (N,) and (M,), of which a high one means strange, as an energy does.

    Returns:
        `float`: 1 where each outlier has a higher score than each usual image, 0.5 for chance.

    Raises:
        ValueError: for no scores, more than one per image, or scores that are not numbers.
    """
    usual, outliers = (torch.as_tensor(scores).detach().cpu().double() for scores in (usual_scores, outlier_scores))
    for name, scores in (("usual_scores", usual), ("outlier_scores", outliers)):
        if scores.ndim != 1 or len(scores) == 0 or scores.isnan().any():
            raise ValueError(f"`{name}` must be one number per image, and at least one.")
    ordered = usual.sort().values
    below = torch.searchsorted(ordered, outliers, right=False) + torch.searchsorted(ordered, outliers, right=True)
    return (below.double().mean() / (2 * len(usual))).item()
