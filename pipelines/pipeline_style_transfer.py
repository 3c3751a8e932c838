"""Images in the style of others: AdaIN, feed-forward networks of one style, and Gatys' optimisation."""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from torch.nn import functional as F

from .checks import accepts, check_choice, check_output_type, is_integer, is_number
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
from .photographs import guided_filter, luminance, match_luminance, matting_laplacian, with_colors_of


class StyleTransferPipeline(DiffusionPipeline):
    r"""
    Paints images in the style of others, or in the style that a network was trained for.

    - With an [`AdaINStyleNet`] (Huang and Belongie 2017, https://huggingface.co/papers/1703.06868), in the style of
      any image, or of several.
    - With a [`FastStyleNet`] (Johnson et al. 2016, https://huggingface.co/papers/1603.08155), in its own style.
    - By optimisation (Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks"), with the
      features of a [`VGG`], or of the encoder of an [`AdaINStyleNet`]: `num_optimization_steps`.

    Args:
        generator ([`AdaINStyleNet`] or [`FastStyleNet`], *optional*):
            A network whose `forward` has an argument `style` takes the images of the style. Images are in `[0, 1]`,
            and have sides of at least `generator.smallest_side`.
        feature_network ([`VGG`], *optional*):
            What sees content and style in the optimisation: `feature_network.encode(images)` returns a map for each
            name in `feature_network.layers`. By default `generator`, if it has this method.

    Raises:
        ValueError: without both of them.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "generator->feature_network"
    _optional_components = ["generator", "feature_network"]

    def __init__(self, generator: ModelMixin | None = None, feature_network: ModelMixin | None = None):
        super().__init__()
        if generator is None and feature_network is None:
            raise ValueError("A StyleTransferPipeline needs a `generator`, a `feature_network`, or both.")
        self.register_modules(generator=generator, feature_network=feature_network)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        style_image: ImageInput | list[ImageInput] | None = None,
        style_weights: Sequence[float] | None = None,
        strength: float = 1.0,
        preserve_colors: bool | str = False,
        guided_filter_radius: int = 0,
        num_optimization_steps: int = 0,
        content_weight: float = 1.0,
        style_weight: float = 1000.0,
        content_layer: str | None = None,
        style_layers: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        photorealism_weight: float = 0.0,
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
            preserve_colors (`bool` or `str`, defaults to `False`):
                How each image keeps its colours. `"coral"`, or `True`: the style images get them first. `"luminance"`:
                only the luminance is painted, in that of the style.
            guided_filter_radius (`int`, defaults to 0):
                For photographs that stay photographs: half the side of windows in which painted images become linear
                functions of the image, so that they have its edges, and no strokes. 0 for paintings.
            num_optimization_steps (`int`, defaults to 0):
                Steps of L-BFGS that lower Gatys' loss, from the images themselves.
            content_weight, style_weight (`float`):
                Of the squared errors of features, and of their Gram matrices, in this optimisation.
            content_layer (`str`, *optional*), style_layers (`Sequence[str]`, *optional*):
                The layers that see content and style in it, such as `"relu3_1"`. By default relu4_2 and, of each
                level, the first; of an AdaINStyleNet, which ends with relu4_1, this sees the content too.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            photorealism_weight (`float`, defaults to 0.0):
                Of the error of the best linear functions of the image's colours in windows of 3x3 pixels, in this
                optimisation: the matting Laplacian of deep photo style transfer (Luan et al. 2017, eq. 2), as a mean
                over all values.

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
        preserve_colors = "coral" if preserve_colors is True else preserve_colors
        self.check_inputs(
            len(styles),
            style_weights,
            strength,
            preserve_colors,
            guided_filter_radius,
            num_optimization_steps,
            {
                "content_weight": content_weight,
                "style_weight": style_weight,
                "photorealism_weight": photorealism_weight,
            },
            content_layer,
            style_layers,
            output_type,
        )
        device = self._execution_device
        images, styles = torch.stack(images).to(device), [style.to(device) for style in styles]
        shares = torch.tensor([1.0] * len(styles) if style_weights is None else list(style_weights))
        shares = (shares / shares.sum()).tolist() if styles else []

        # 2. Painting, of one image after the other
        painted = []
        for image in self.progress_bar(images.split(1)):
            entry, own = image, styles
            if preserve_colors == "coral":
                own = [give_colors(style[0], image[0])[None] for style in styles]
            elif preserve_colors == "luminance":
                entry, own = luminance(image), [match_luminance(style, image) for style in styles]
            if num_optimization_steps > 0:
                weights = content_weight, style_weight, photorealism_weight
                output = self._optimize(
                    entry, own, shares, num_optimization_steps, *weights, content_layer, style_layers
                )
            else:
                output = self._paint(entry, own, shares, strength)
            if preserve_colors == "luminance":
                output = with_colors_of(image, output)
            if guided_filter_radius > 0:
                output = guided_filter(image, output, guided_filter_radius)
            painted.append(output)
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
        photorealism_weight: float,
        content_layer: str | None,
        style_layers: Sequence[str] | None,
    ) -> torch.Tensor:
        """Gatys et al. 2016, eq. 7: the image `(1, 3, H, W)` whose features and Gram matrices are the wanted ones."""
        height, width = image.shape[2:]
        network = self._seeing
        content_layer = content_layer or ("relu4_2" if "relu4_2" in network.layers else network.layers[-1])
        style_layers = style_layers or [name for name in network.layers if name.endswith("_1")]

        def see(images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            maps = dict(zip(network.layers, network.encode(images), strict=True))
            return maps[content_layer], [gram_matrix(maps[name]) for name in style_layers]

        image = self._large_enough(image)
        content, _ = see(image)
        grams = [
            [share * gram for gram in see(self._large_enough(style))[1]]
            for style, share in zip(styles, shares, strict=True)
        ]
        grams = [sum(layers) for layers in zip(*grams, strict=True)]
        laplacian = matting_laplacian(image) if photorealism_weight > 0 else torch.zeros_like
        with torch.enable_grad():
            painted = image.clone().requires_grad_(True)
            optimizer = torch.optim.LBFGS(
                [painted],
                max_iter=num_steps,
                max_eval=2 * num_steps,
                tolerance_grad=0,
                tolerance_change=0,
                line_search_fn="strong_wolfe",
            )

            def error() -> torch.Tensor:
                features, own = see(painted)
                errors = [F.mse_loss(layer, gram) for layer, gram in zip(own, grams, strict=True)]
                unreal = (painted * laplacian(painted)).mean()
                style = style_weight * sum(errors)
                return content_weight * F.mse_loss(features, content) + style + photorealism_weight * unreal

            # As a part of what it is at the start: L-BFGS diverges where gradients are large.
            start = error().detach()

            def loss() -> torch.Tensor:
                optimizer.zero_grad()
                part = error() / start
                (painted.grad,) = torch.autograd.grad(part, painted)
                return part

            if start > 0:  # otherwise, there is nothing to change
                optimizer.step(loss)
        return painted.detach()[..., :height, :width]

    @property
    def _seeing(self) -> ModelMixin | None:
        """The network whose layers see content and style in the optimisation, if there is one."""
        network = self.generator if self.feature_network is None else self.feature_network
        return network if hasattr(network, "layers") else None

    def _large_enough(self, images: torch.Tensor) -> torch.Tensor:
        networks = [network for network in (self.generator, self.feature_network) if network is not None]
        least = max(network.smallest_side for network in networks)
        return pad_images(images, *(max(side, least) for side in images.shape[2:]))

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "StyleTransferPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels of the images, and height and width of the training images if a network knows them."""
        return (3, *get_sample_size(self.feature_network if self.generator is None else self.generator))

    def check_inputs(
        self,
        num_styles: int,
        style_weights: Sequence[float] | None,
        strength: float,
        preserve_colors: bool | str,
        guided_filter_radius: int,
        num_optimization_steps: int,
        weights: dict[str, float],
        content_layer: str | None,
        style_layers: Sequence[str] | None,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        if not is_integer(num_optimization_steps) or num_optimization_steps < 0:
            raise ValueError(
                f"`num_optimization_steps` must be an integer of at least 0, but is {num_optimization_steps!r}."
            )
        optimizes = num_optimization_steps > 0
        if optimizes and self._seeing is None:
            raise ValueError(
                "`num_optimization_steps` needs a network with features: an AdaINStyleNet, or a `feature_network`."
            )
        if not optimizes and self.generator is None:
            raise ValueError("`num_optimization_steps` must be above 0, because there is no `generator` that paints.")
        takes_styles = optimizes or accepts(self.generator.forward, "style")
        if takes_styles and num_styles == 0:
            raise ValueError("`style_image` is required by this network: pass the image of the style.")
        if not takes_styles and num_styles > 0:
            raise ValueError("This network has a style of its own: leave out `style_image`.")
        for name, layers in (("content_layer", [content_layer]), ("style_layers", style_layers)):
            if layers in (None, [None]):
                continue
            if not optimizes:
                raise ValueError(f"`{name}` is for `num_optimization_steps`, which is 0.")
            unknown = [layer for layer in layers if layer not in self._seeing.layers]
            if unknown or not layers:
                raise ValueError(f"`{name}` must be of {', '.join(self._seeing.layers)}, but is {layers}.")
        for name, weight in weights.items():
            if not is_number(weight) or weight < 0:
                raise ValueError(f"`{name}` must be a number of at least 0, but is {weight!r}.")
        if weights["photorealism_weight"] > 0 and not optimizes:
            raise ValueError("`photorealism_weight` is for `num_optimization_steps`, which is 0.")
        if style_weights is not None:
            is_fine = len(style_weights) == num_styles and all(is_number(w) and w >= 0 for w in style_weights)
            if not is_fine or sum(style_weights) == 0:
                raise ValueError(
                    f"`style_weights` must be {num_styles} numbers of at least 0, not all 0, one for each style, "
                    f"but are {list(style_weights)}."
                )
        if not is_number(strength) or not 0 <= strength <= 1:
            raise ValueError(f"`strength` must be from 0 to 1, but is {strength!r}.")
        if optimizes and strength != 1:
            raise ValueError("`strength` is for networks that paint in one pass, not for `num_optimization_steps`.")
        if preserve_colors is not False:
            check_choice("preserve_colors", preserve_colors, ("coral", "luminance"))
        if preserve_colors == "coral" and not takes_styles:
            raise ValueError("`preserve_colors` must be 'luminance' for a network that takes no style images.")
        if not is_integer(guided_filter_radius) or guided_filter_radius < 0:
            raise ValueError(
                f"`guided_filter_radius` must be an integer of at least 0, but is {guided_filter_radius!r}."
            )
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
