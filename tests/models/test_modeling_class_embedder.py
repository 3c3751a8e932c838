import pytest
import torch

from diffusers_ext.models.modeling_class_embedder import ClassEmbedder
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class ClassEmbedderConfig(ModelTesterConfig):
    model_class = ClassEmbedder
    output_shape = (3, 1, 8)

    def get_init_dict(self):
        return {"num_class_embeds": 5, "embed_dim": 8}

    def get_inputs(self):
        return {"class_labels": torch.tensor([4, 0, 2])}


class TestClassEmbedder(ClassEmbedderConfig, ModelTesterMixin):
    def test_equal_classes_have_equal_vectors(self):
        embedded = self.get_model()(torch.tensor([1, 3, 1]))
        assert embedded[0].equal(embedded[2]) and not embedded[0].equal(embedded[1])

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match=r"`class_labels` must be of the shape \(N,\), but is of \(2, 1\)"):
            self.get_model()(torch.zeros(2, 1, dtype=torch.long))
        with pytest.raises(ValueError, match="must be positive, but are 5 and 0"):
            ClassEmbedder(num_class_embeds=5, embed_dim=0)
