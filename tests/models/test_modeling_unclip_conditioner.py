import pytest
import torch
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

from diffusers_ext.models.modeling_unclip_conditioner import UnCLIPConditioner
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class UnCLIPConditionerConfig(ModelTesterConfig):
    model_class = UnCLIPConditioner
    output_shape = (3, 12)

    def get_init_dict(self):
        sizes = {"clip_embeddings_dim": 6, "time_embed_dim": 12, "cross_attention_dim": 8}
        return {**sizes, "clip_extra_context_tokens": 2}

    def get_inputs(self):
        draw = torch.Generator().manual_seed(0)
        image_embeds, prompt_embeds = torch.randn(2, 3, 6, generator=draw)
        mask = torch.arange(5) < torch.tensor([[2], [5], [3]])
        hidden_states = torch.randn(3, 5, 6, generator=draw)
        return {
            "image_embeds": image_embeds,
            "prompt_embeds": prompt_embeds,
            "hidden_states": hidden_states,
            "mask": mask,
            "is_hidden": torch.tensor([True, False, True]),
        }


class TestUnCLIPConditioner(UnCLIPConditionerConfig, ModelTesterMixin):
    def loss_gradients(self, model):
        model.zero_grad()
        output = model(**self.get_inputs())
        (output.class_labels.square().mean() + output.encoder_hidden_states.square().mean()).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def test_it_is_the_projection_of_diffusers(self):
        model, inputs = self.get_model(), self.get_inputs()
        with torch.no_grad():
            model.learned_classifier_free_guidance_embeddings.normal_()
        theirs = UnCLIPTextProjModel.from_config(model.config).eval()
        theirs.load_state_dict(model.state_dict())
        texts = {name: inputs[name].repeat(2, *[1] * (inputs[name].ndim - 1)) for name in list(inputs)[1:4]}
        context, class_labels = theirs(
            image_embeddings=inputs["image_embeds"],
            prompt_embeds=texts["prompt_embeds"],
            text_encoder_hidden_states=texts["hidden_states"],
            do_classifier_free_guidance=True,  # first those without embeddings
        )
        both = torch.cat([inputs["image_embeds"]] * 2)
        found = model(both, **texts, is_hidden=torch.arange(6) < 3)
        torch.testing.assert_close(found.encoder_hidden_states, context)
        torch.testing.assert_close(found.class_labels, class_labels)
        assert found.encoder_attention_mask[0].tolist() == [True] * 4 + [False] * 3

    def test_what_does_not_fit_is_refused(self):
        inputs = self.get_inputs()
        with pytest.raises(ValueError, match=r"`image_embeds` must be of the shape \(N, 6\), but is of \(3, 4\)"):
            self.get_model()(**{**inputs, "image_embeds": torch.zeros(3, 4)})
        with pytest.raises(ValueError, match="`time_embed_dim` must be positive, but is 0"):
            UnCLIPConditioner(time_embed_dim=0)
