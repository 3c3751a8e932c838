"""Tests of all generators and discriminators, as a mixin that complements those of `testing`."""

from abc import ABC, abstractmethod

import pytest
import torch


class GANTesterMixin(ABC):
    """Describes a pair of small networks for images of `image_shape`, with 6 latents and without dropout."""

    image_shape: tuple[int, int, int]
    body: str  # the prefix of the names of the layers whose features the heads use

    @abstractmethod
    def make_generator(self, **options) -> torch.nn.Module: ...

    @abstractmethod
    def make_discriminator(self, **options) -> torch.nn.Module: ...

    @abstractmethod
    def scoring_weights(self, discriminator) -> list[torch.Tensor]:
        """The weights of the layers for the score, without embeddings."""

    def make_pair_and_inputs(self, number: int = 2, generator_options: dict | None = None, **options):
        """Both networks, each with inputs."""
        generator = self.make_generator(**(generator_options or {}))
        yield generator, torch.randn(number, 6)
        yield self.make_discriminator(**options), torch.randn(number, *self.image_shape)

    @pytest.mark.parametrize("conditioning", ["concat", "embedding", "projection"])
    @torch.no_grad()
    def test_the_class_counts(self, conditioning):
        torch.manual_seed(0)
        options, labels = {"num_classes": 3, "conditioning": conditioning}, torch.tensor([0, 1, 2])
        sample = torch.randn(1, *self.image_shape).expand(3, -1, -1, -1)
        assert self.make_discriminator(**options).eval()(sample, labels).logits.unique().numel() == 3
        if conditioning != "projection":
            images = self.make_generator(**options).eval()(torch.randn(1, 6).expand(3, -1), labels).sample
            assert not torch.allclose(images[0], images[1]) and not torch.allclose(images[1], images[2])

    @torch.no_grad()
    def test_spectral_norm_bounds_the_weights_of_the_score_only(self):
        torch.manual_seed(0)
        options = {"num_classes": 3, "conditioning": "projection", "auxiliary_classifier": True}
        discriminator = self.make_discriminator(normalization="none", spectral_norm=True, **options).train()
        for _ in range(100):  # each pass in training is one step of the power iteration
            discriminator(torch.randn(2, *self.image_shape), torch.tensor([0, 1]))
        discriminator.eval()
        for weight in [*self.scoring_weights(discriminator), discriminator.class_embedding.weight]:
            assert abs(torch.linalg.matrix_norm(weight.flatten(1), ord=2) - 1) < 1e-3
        assert not hasattr(discriminator.class_head, "parametrizations")

    def test_heads_learn_and_are_of_their_sizes(self):
        options = {"num_classes": 5, "auxiliary_classifier": True, "num_categories": 3, "num_continuous_codes": 1}
        discriminator = self.make_discriminator(**options).train()
        output = discriminator(torch.randn(3, *self.image_shape))
        assert output.class_logits.shape == (3, 5) and output.code.shape == (3, 4)
        (output.class_logits.square().sum() + output.code.square().sum()).backward()
        for name, parameter in discriminator.named_parameters():
            if "head" in name or name.startswith(self.body):
                assert parameter.grad is not None and parameter.grad.any(), name
        plain = self.make_discriminator().eval()(torch.randn(2, *self.image_shape))
        assert plain.class_logits is None and plain.code is None

    @pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
    def test_a_batch_of_one_is_refused_under_batch_normalization_only(self, normalization):
        options = {"normalization": normalization}
        for model, inputs in self.make_pair_and_inputs(1, options, **options):
            model.eval()(inputs)
            model.train()
            if normalization == "batch":
                with pytest.raises(ValueError, match="batch of one"):
                    model(inputs)
            else:
                model(inputs)

    @pytest.mark.parametrize(
        "labels, message",
        [
            (None, "must be given"),
            (torch.tensor([0, 5]), "from 0 to 4, but hold 5"),
            (torch.tensor([-1, 0]), "from 0 to 4, but hold -1"),
            (torch.tensor([0]), r"of the shape \(2,\)"),
            (torch.tensor([[0, 1]]), r"of the shape \(2,\)"),
            (torch.tensor([0.0, 1.0]), "must be integers"),
        ],
    )
    def test_bad_labels_are_refused(self, labels, message):
        told = {"num_classes": 5, "conditioning": "concat"}
        for model, inputs in self.make_pair_and_inputs(2, told, num_classes=5, conditioning="projection"):
            with pytest.raises(ValueError, match=message) as error:
                model(inputs, labels)
            assert "\n" not in str(error.value)

    def test_labels_of_a_network_without_classes_are_refused(self):
        auxiliary = self.make_discriminator(num_classes=5, auxiliary_classifier=True).eval()
        images = torch.randn(2, *self.image_shape)
        for model, inputs in [*self.make_pair_and_inputs(), (auxiliary, images)]:
            with pytest.raises(ValueError, match="takes none"):
                model(inputs, torch.tensor([0, 1]))
        assert auxiliary(images).class_logits.shape == (2, 5)

    @pytest.mark.parametrize("shape", [(2, 7), (2, 6, 1, 1), (6,)])
    def test_latents_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"`latents` must be \(N, 6\)"):
            self.make_generator()(torch.randn(shape))

    def test_images_of_another_shape_are_refused(self):
        channels, height, width = self.image_shape
        wanted = rf"`sample` must be \(N, {channels}, {height}, {width}\)"
        for shape in ((2, channels + 1, height, width), (2, channels, 2 * height, width), (channels, height, width)):
            with pytest.raises(ValueError, match=wanted):
                self.make_discriminator()(torch.randn(shape))
