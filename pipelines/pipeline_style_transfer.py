"""Images in the style of others: AdaIN, feed-forward networks of one style, and Gatys' optimisation."""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from torch.nn import functional as F

from .checks import accepts, check_output_type, is_integer, is_number
from .images import (
    ImageInput,
    carry_profiles,
    check_one_size,
    fit_channels,
    list_images,
    pad_images,
    read_image,
    to_output,
)
from .networks import get_sample_size, get_shared_models


class StyleTransferPipeline(DiffusionPipeline):
    r"""
    Paints images in the style of others, or in the style that a network was trained for.

    - With an [`AdaINStyleNet`] (Huang and Belongie 2017, https://huggingface.co/papers/1703.06868), in the style of
      any image, or of several.
    - With a [`FastStyleNet`] (Johnson et al. 2016, https://huggingface.co/papers/1603.08155), in its own style.
    - By optimisation (Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks"), with the
      features of an [`AdaINStyleNet`], whose encoder is VGG-19: `num_optimization_steps`.

    Args:
        generator ([`AdaINStyleNet`] or [`FastStyleNet`]):
            A network whose `forward` has an argument `style` takes the images of the style. Images are in `[0, 1]`,
            and have sides of at least `generator.smallest_side`.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "generator"

    def __init__(self, generator: ModelMixin):
        super().__init__()
        self.register_modules(generator=generator)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        style_image: ImageInput | list[ImageInput] | None = None,
        style_weights: Sequence[float] | None = None,
        strength: float = 1.0,
        preserve_colors: bool = False,
        num_optimization_steps: int = 0,
        content_weight: float = 1.0,
        style_weight: float = 1000.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Paints images.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several of one size, or their paths; floats in `[0, 1]` or bytes. Gray images become
                coloured ones.
            style_image (*optional*):
                The image of the style, or several that are mixed, of any sizes. A network of one style has none.
            style_weights (`Sequence[float]`, *optional*):
                The share of each style, which are divided by their sum; by default equal.
            strength (`float`, defaults to 1.0):
                How much of the style images get, from 0 to 1.
            preserve_colors (`bool`, defaults to `False`):
                Whether to give the style images the colours of each image first, so that it keeps its own.
            num_optimization_steps (`int`, defaults to 0):
                Steps of L-BFGS that lower Gatys' loss, from the images themselves.
            content_weight, style_weight (`float`):
                Of the squared errors of features, and of their Gram matrices, in this optimisation.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, of the size of the
            inputs.

        Raises:
            ValueError: for input that cannot be painted.
        """
        # 1. Input
        sources = list_images("image", image)
        images = [fit_channels("image", read_image("image", entry), 3) for entry in sources]
        styles = [] if style_image is None else list_images("style_image", style_image)
        styles = [fit_channels("style_image", read_image("style_image", entry), 3)[None] for entry in styles]
        check_one_size(images)
        self.check_inputs(len(styles), style_weights, strength, preserve_colors, num_optimization_steps, output_type)
        device = self._execution_device
        images, styles = torch.stack(images).to(device), [style.to(device) for style in styles]
        shares = torch.tensor(style_weights or [1.0] * len(styles))
        shares = (shares / shares.sum()).tolist() if styles else []

        # 2. Painting, of one image after the other
        painted = []
        for entry in self.progress_bar(images.split(1)):
            own = [give_colors(style[0], entry[0])[None] for style in styles] if preserve_colors else styles
            if num_optimization_steps > 0:
                painted.append(
                    self._optimize(entry, own, shares, num_optimization_steps, content_weight, style_weight)
                )
            else:
                painted.append(self._paint(entry, own, shares, strength))
        painted = torch.cat(painted).clamp(0, 1)
        self.maybe_free_model_hooks()

        # 3. Output
        outputs = to_output(painted, output_type)
        if output_type == "pil":
            carry_profiles(outputs, sources)
        return ImagePipelineOutput(images=outputs) if return_dict else (outputs,)

    def _paint(
        self, image: torch.Tensor, styles: list[torch.Tensor], shares: list[float], strength: float
    ) -> torch.Tensor:
        """One pass of the network for an image `(1, 3, H, W)`, or one for each style."""
        dtype, (height, width) = self.generator.dtype, image.shape[2:]
        padded = self._large_enough(image).to(dtype)
        if not styles:
            output = self.generator(padded, return_dict=False)[0][..., :height, :width].float()
            return image + strength * (output - image)
        # The features of all styles, mixed by their shares.
        content, features = self.generator.encode(padded)[-1], 0.0
        for style, share in zip(styles, shares, strict=True):
            other = self.generator.encode(self._large_enough(style).to(dtype))[-1]
            features = features + share * self.generator.restyle(content, other)
        features = strength * features + (1 - strength) * content
        return self.generator.decode(features)[..., :height, :width].float()

    def _optimize(
        self,
        image: torch.Tensor,
        styles: list[torch.Tensor],
        shares: list[float],
        num_steps: int,
        content_weight: float,
        style_weight: float,
    ) -> torch.Tensor:
        """Gatys et al. 2016, eq. 7: the image `(1, 3, H, W)` whose features and Gram matrices are the wanted ones."""
        height, width = image.shape[2:]
        image = self._large_enough(image)
        content = self.generator.encode(image)[-1]
        grams = [
            [share * gram_matrix(layer) for layer in self.generator.encode(self._large_enough(style))]
            for style, share in zip(styles, shares, strict=True)
        ]
        grams = [sum(layers) for layers in zip(*grams, strict=True)]
        with torch.enable_grad():
            painted = image.clone().requires_grad_(True)
            optimizer = torch.optim.LBFGS([painted], max_iter=num_steps, tolerance_grad=0, tolerance_change=0)

            def loss() -> torch.Tensor:
                optimizer.zero_grad()
                features = self.generator.encode(painted)
                errors = [F.mse_loss(gram_matrix(layer), gram) for layer, gram in zip(features, grams, strict=True)]
                total = content_weight * F.mse_loss(features[-1], content) + style_weight * sum(errors)
                (painted.grad,) = torch.autograd.grad(total, painted)
                return total

            optimizer.step(loss)
        return painted.detach()[..., :height, :width]

    def _large_enough(self, images: torch.Tensor) -> torch.Tensor:
        return pad_images(images, *(max(side, self.generator.smallest_side) for side in images.shape[2:]))

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "StyleTransferPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels of the images, and height and width of the training images if `generator` knows them."""
        return (3, *get_sample_size(self.generator))

    def check_inputs(
        self,
        num_styles: int,
        style_weights: Sequence[float] | None,
        strength: float,
        preserve_colors: bool,
        num_optimization_steps: int,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        takes_styles = accepts(self.generator.forward, "style")
        if takes_styles and num_styles == 0:
            raise ValueError("`style_image` is required by this network: pass the image of the style.")
        if not takes_styles and num_styles > 0:
            raise ValueError("This network has a style of its own: leave out `style_image`.")
        if style_weights is not None:
            is_fine = len(style_weights) == num_styles and all(is_number(w) and w >= 0 for w in style_weights)
            if not is_fine or sum(style_weights) == 0:
                raise ValueError(
                    f"`style_weights` must be {num_styles} numbers of at least 0, not all 0, one for each style, "
                    f"but are {list(style_weights)}."
                )
        if not is_number(strength) or not 0 <= strength <= 1:
            raise ValueError(f"`strength` must be from 0 to 1, but is {strength!r}.")
        if preserve_colors and not takes_styles:
            raise ValueError("`preserve_colors` needs a network that takes style images.")
        if not is_integer(num_optimization_steps) or num_optimization_steps < 0:
            raise ValueError(
                f"`num_optimization_steps` must be an integer of at least 0, but is {num_optimization_steps!r}."
            )
        if num_optimization_steps > 0 and not takes_styles:
            raise ValueError("`num_optimization_steps` needs a network with features, such as an AdaINStyleNet.")
        check_output_type(output_type, 3)


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """The products of each two channels of `(N, C, H, W)`, divided by C * H * W: `(N, C, C)`."""
    rows = features.flatten(2)
    return rows @ rows.transpose(1, 2) / rows[0].numel()


def give_colors(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    An image with the means, deviations and correlations of the colours of another (CORAL).

    Gatys et al. 2016 ("Preserving Color in Neural Artistic Style Transfer", section 3), with the regularization of
    https://github.com/naoto0804/pytorch-AdaIN: the unit matrix is added to sums over all pixels.

    Args:
        source (`torch.Tensor` of shape `(3, H, W)`): the image whose colours change.
        target (`torch.Tensor` of shape `(3, h, w)`): the image that gives the colours.

    Returns:
        `torch.Tensor` of shape `(3, H, W)`, not clipped.
    """
    rows = [image.flatten(1) for image in (source, target)]
    means, deviations = [row.mean(1, keepdim=True) for row in rows], [row.std(1, keepdim=True) for row in rows]
    normalized = [
        (row - mean) / deviation.clamp(min=1e-12) for row, mean, deviation in zip(rows, means, deviations, strict=True)
    ]
    roots = [symmetric_root(row @ row.T + torch.eye(len(row), device=row.device)) for row in normalized]
    moved = roots[1] @ torch.linalg.inv(roots[0]) @ normalized[0]
    return (moved * deviations[1] + means[1]).view_as(source)


def symmetric_root(matrix: torch.Tensor) -> torch.Tensor:
    """The root of a symmetric, positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
