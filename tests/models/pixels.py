"""Tests of all networks that predict pixels from earlier ones, as a mixin that complements those of `testing`."""

import math

import torch


class PixelTesterMixin:
    """For a config whose inputs are a `sample` and, of a conditional network, `class_labels`."""

    sees_all_before = True
    sees_exact_values = True  # and not only the nearest levels

    def everything_after(self, sample: torch.Tensor, row: int, column: int, draw: int, value: float) -> torch.Tensor:
        """The sample with another value in all that is not drawn yet when `draw` of a pixel is."""
        changed = sample.flatten(2).clone()
        position = row * sample.shape[3] + column
        changed[:, draw:, position] = value
        changed[:, :, position + 1 :] = value
        return changed.view_as(sample)

    @torch.no_grad()
    def test_no_pixel_depends_on_itself_or_a_later_one_and_the_cache_computes_the_same(self):
        model, inputs = self.get_model(), self.get_inputs()
        sample, labels = inputs["sample"], inputs.get("class_labels")
        height, width = sample.shape[2:]
        whole, cache = model(**inputs).parameters, model.new_cache(height, width)
        for row in range(height):
            for column in range(width):
                for draw in range(model.draws_per_pixel):
                    expected = whole[:, :, row, column].chunk(model.draws_per_pixel, dim=1)[draw]
                    for value, kept in ((0.7, cache), (-0.9, None)):
                        seen = self.everything_after(sample, row, column, draw, value)
                        found = model.parameters_at(seen, row, column, draw, labels, kept)
                        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    def test_the_last_pixel_depends_on_all_before(self):
        model, inputs = self.get_model(), self.get_inputs()
        if not (self.sees_all_before and self.sees_exact_values):
            return
        sample = inputs["sample"].requires_grad_()
        model(**inputs).parameters[:, :, -1, -1].square().sum().backward()
        seen = sample.grad.abs().sum(dim=(0, 1)).flatten() > 0
        if model.draws_per_pixel == 1 or sample.shape[1] == 1:
            assert not seen[-1]
        assert seen[:-1].all()

    @torch.no_grad()
    def test_probabilities_of_all_images_sum_to_one(self):
        """Of those that differ in one pixel: the levels of each colour given the others before it."""
        model, inputs = self.get_model(), self.get_inputs()
        levels, number = model.config.num_levels, len(inputs["sample"])
        sample, total = inputs["sample"].clone(), 0
        for level in range(levels):
            sample[:, -1, -1, -1] = 2 * level / (levels - 1) - 1
            log_probs = model.log_prob(model(**{**inputs, "sample": sample}).parameters, sample)[:, -1, -1]
            total = total + (log_probs - self.log_prob_of_other_colors(model, inputs, sample)).exp()
        torch.testing.assert_close(total, torch.ones(number), rtol=0, atol=1e-4)

    def log_prob_of_other_colors(self, model, inputs, sample: torch.Tensor) -> torch.Tensor:
        """Of the last pixel's colours but the last one, `(N,)`."""
        parameters = model(**{**inputs, "sample": sample}).parameters[:, :, -1, -1].chunk(sample.shape[1], dim=1)
        total = torch.zeros(len(sample))
        for color, logits in enumerate(parameters[:-1]):
            value = (sample[:, color, -1, -1] + 1) / 2 * (model.config.num_levels - 1)
            total = total + logits.log_softmax(dim=1)[torch.arange(len(sample)), value.round().long()]
        return total

    @torch.no_grad()
    def test_drawn_values_have_their_probabilities(self):
        model, inputs = self.get_model(), self.get_inputs()
        parameters = 20 * model(**inputs).parameters[:1, :, -1:, -1:]
        count, levels = 4000, model.config.num_levels
        own = parameters[:, :, 0, 0].chunk(model.draws_per_pixel, dim=1)[0].expand(count, -1)
        uniforms = torch.rand((count, model.uniforms_per_draw), generator=torch.Generator().manual_seed(0))
        drawn = model.draw_values(own, uniforms, 1.0)
        assert drawn.shape[0] == count and drawn.abs().max() <= 1
        cold = model.draw_values(own, uniforms, 1e-3)
        assert cold.std(dim=0).max() <= drawn.std(dim=0).max()
        found = ((drawn[:, 0] + 1) / 2 * (levels - 1)).round().long().bincount(minlength=levels) / count
        expected = self.probabilities_of_the_first_color(model, parameters)
        assert (found - expected).abs().max() < 4 / math.sqrt(count)

    def probabilities_of_the_first_color(self, model, parameters: torch.Tensor) -> torch.Tensor:
        """`(num_levels,)`, of parameters `(1, P, 1, 1)`."""
        return parameters[0, : model.config.num_levels, 0, 0].softmax(dim=0)
