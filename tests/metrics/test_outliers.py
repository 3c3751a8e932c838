import pytest
import torch
from sklearn.metrics import roc_auc_score

from diffusers_ext.metrics import auroc


def test_the_area_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    usual = torch.randint(10, (50,), generator=generator)  # with ties
    outliers = torch.randint(15, (30,), generator=generator)
    expected = roc_auc_score([0] * 50 + [1] * 30, torch.cat([usual, outliers]))
    assert auroc(usual, outliers) == pytest.approx(expected, abs=1e-12)
    assert auroc([0.0, 1.0], [2.0, 3.0]) == 1 and auroc([1.0], [1.0]) == 0.5


@pytest.mark.parametrize("scores", [[], [float("nan")], [[1.0]]])
def test_what_are_no_scores_is_refused(scores):
    with pytest.raises(ValueError, match="`outlier_scores` must be one number per image"):
        auroc([1.0], scores)
