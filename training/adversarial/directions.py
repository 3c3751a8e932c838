"""Finding directions in the latent space of a GAN: principal ones, factors of the weights, and those of classes."""

from collections.abc import Callable

import torch
from diffusers import ModelMixin
from torch import nn

from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.pipelines.latent_directions import LatentDirections, latent_fingerprint
from diffusers_ext.pipelines.style_options import has_styles


BATCH = 100
FEWEST_OF_A_CLASS = 10  # images on each side of a plane that separates a class
RIDGE = 1.0  # the weight of the squared length of a normal, in standardized coordinates, where many planes separate


def principal_directions(
    pipe: GANPipeline, num_directions: int = 10, num_samples: int = 4000, layer: str | None = None, seed: int = 0
) -> LatentDirections:
    """
    GANSpace (Härkönen et al. 2020, section 3, https://huggingface.co/papers/2004.02546): the principal components of
    the styles of random images; or, of a generator without styles, those of the features of a layer, carried to the
    latents by a linear regression.

    Args:
        pipe ([`GANPipeline`]): the pipeline of the generator.
        num_directions (`int`): how many, those with most variance first.
        num_samples (`int`): how many random images.
        layer (`str`, *optional*): the module of the generator whose features are taken, for one without styles.
        seed (`int`): of the random images.

    Raises:
        ValueError: for a number or a layer that does not fit the generator.
    """
    generator = pipe.generator
    modules = dict(generator.named_modules())
    if has_styles(generator) != (layer is None) or (layer is not None and layer not in modules):
        known = "must be left out for a generator with styles"
        if not has_styles(generator):
            known = f"must name a module of the generator, such as {', '.join(list(modules)[1:6])}"
        raise ValueError(f"`layer` {known}, but is {layer!r}.")
    latents, labels = sample_latents(pipe, num_samples, seed)
    if layer is None:
        features = in_batches(lambda *batch: generator.map_latents(*batch), latents, labels)
    else:
        features = features_of(generator, modules[layer], latents, labels)
    centred = (features - features.mean(dim=0)).double()
    _check_number(num_directions, min(centred.shape))
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    deviations = values / (num_samples - 1) ** 0.5
    if layer is None:
        vectors = axes * deviations[:, None]
    else:
        # Section 3.2: the latents that explain a unit of each coordinate best.
        scores = centred @ axes[:num_directions].T
        z = latents.double() - latents.double().mean(dim=0)
        vectors = torch.linalg.lstsq(scores, z).solution * deviations[:num_directions, None]
    shares = values.square() / values.square().sum()
    of = "the styles" if layer is None else f"the features of {layer}"
    purposes = [f"principal component {i + 1} of {of}, {share:.1%} of the variance" for i, share in enumerate(shares)]
    return _named(generator, "component", vectors[:num_directions], purposes, is_styles=layer is None)


def factorized_directions(
    pipe: GANPipeline, num_directions: int = 10, layers: list[int] | None = None, seed: int = 0
) -> LatentDirections:
    """
    SeFa (Shen & Zhou 2021, eq. 7, https://huggingface.co/papers/2007.06600): the eigenvectors of A^T A, where A are
    the weights that the latent is first multiplied by, those of the largest changes first.

    Args:
        pipe ([`GANPipeline`]): the pipeline of the generator.
        num_directions (`int`): how many.
        layers (`list[int]`, *optional*): of a generator with styles, the layers whose weights are taken, and which the
            directions move; by default all.
        seed (`int`): of the random images that give the directions their lengths.

    Raises:
        ValueError: for a number or layers that do not fit the generator, and a generator without such weights.
    """
    generator, is_styles = pipe.generator, has_styles(pipe.generator)
    if layers is not None and (not is_styles or any(not 0 <= layer < generator.num_styles for layer in layers)):
        known = f"some of 0 to {generator.num_styles - 1}" if is_styles else "left out without styles"
        raise ValueError(f"`layers` must be {known}, but are {layers}.")
    weights = style_weights(generator, layers) if is_styles else first_weights(generator)
    _check_number(num_directions, weights.shape[1])
    values, axes = torch.linalg.eigh(weights.double().T @ weights.double())
    axes = axes.T.flip(0)[:num_directions]
    latents, labels = sample_latents(pipe, 1000, seed)
    if is_styles:
        latents = in_batches(lambda *batch: generator.map_latents(*batch), latents, labels)
    vectors = axes * (latents.double() @ axes.T).std(dim=0)[:, None]
    moved = "" if layers is None else f" of the layers {layers}"
    purposes = [f"factor {i + 1} of the weights{moved}" for i in range(len(axes))]
    return _named(generator, "factor", vectors, purposes, is_styles, layers)


def class_directions(
    pipe: GANPipeline,
    classifier: FeatureExtractor | None = None,
    num_samples: int = 4000,
    seed: int = 0,
) -> LatentDirections:
    """
    InterFaceGAN (Shen et al. 2020, section 3, https://huggingface.co/papers/2005.09635): for each class the normal of
    the plane between its images and the others, by a logistic regression.

    Args:
        pipe ([`GANPipeline`]): the pipeline of the generator.
        classifier ([`FeatureExtractor`], *optional*): says the class of each random image, such as
            `load_feature_extractor("digits")`; by default it is the class that the image was asked for.
        num_samples (`int`): how many random images.
        seed (`int`): of these images.

    Raises:
        ValueError: if the classes are unknown, or too few images are of a class or of none.
    """
    latents, classes, names = _classified(pipe, classifier, num_samples, seed)
    vectors, purposes, found = [], [], []
    for number, name in names.items():
        is_inside = classes == number
        if FEWEST_OF_A_CLASS <= is_inside.sum() <= num_samples - FEWEST_OF_A_CLASS:
            normal, accuracy = separating_normal(latents, is_inside)
            vectors.append(normal * (latents.double() @ normal).std())
            purposes.append(f"towards the class {name}; the plane is right about {accuracy:.1%} of random images")
            found.append(str(name))
    if not found:
        raise ValueError(f"Of {num_samples} random images, no class has {FEWEST_OF_A_CLASS} on each side.")
    return _named(pipe.generator, found, vectors, purposes, has_styles(pipe.generator))


def mean_directions(
    pipe: GANPipeline,
    classifier: FeatureExtractor | None = None,
    num_samples: int = 4000,
    seed: int = 0,
) -> LatentDirections:
    """
    The arithmetic of Radford et al. 2016, section 6.3.2 (https://huggingface.co/papers/1511.06434): for each class the
    way from the mean of all classes to its own mean. A strength of -1 for the class of an image, and 1 for another,
    puts the image at the same place among images of the other class.

    Args:
        pipe ([`GANPipeline`]), classifier ([`FeatureExtractor`], *optional*), num_samples (`int`), seed (`int`):
            As in [`class_directions`].

    Raises:
        ValueError: if the classes are unknown, or too few images are of a class.
    """
    latents, classes, names = _classified(pipe, classifier, num_samples, seed)
    found = {number: name for number, name in names.items() if (classes == number).sum() >= FEWEST_OF_A_CLASS}
    if len(found) < 2:
        raise ValueError(f"Of {num_samples} random images, only {len(found)} classes have {FEWEST_OF_A_CLASS}.")
    means = torch.stack([latents[classes == number].double().mean(dim=0) for number in found])
    purposes = [f"from the mean of all classes to that of the class {name}" for name in found.values()]
    found = [str(name) for name in found.values()]
    return _named(pipe.generator, found, means - means.mean(dim=0), purposes, has_styles(pipe.generator))


def _classified(
    pipe: GANPipeline, classifier: FeatureExtractor | None, num_samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, dict[int, str]]:
    """Random latents, or their styles; their classes; and the names of the classes."""
    generator, is_styles = pipe.generator, has_styles(pipe.generator)
    latents, labels = sample_latents(pipe, num_samples, seed)
    if classifier is None:
        if labels is None or not is_styles:
            raise ValueError(
                "A classifier must be given, because latents and classes are independent: only a generator with "
                "styles and classes has its classes in its styles."
            )
        classes, names = labels, pipe.config.id2label or {}
        names = {int(key): name for key, name in names.items()} or {i: str(i) for i in range(pipe.num_classes)}
    else:
        if classifier.id2label is None:
            raise ValueError(f"{classifier.name} is no classifier: it has no names of classes.")
        classes = in_batches(lambda *batch: _predict(pipe, classifier, *batch), latents, labels)
        names = classifier.id2label
    if is_styles:
        latents = in_batches(lambda *batch: generator.map_latents(*batch), latents, labels)
    return latents, classes, names


def separating_normal(points: torch.Tensor, is_inside: torch.Tensor) -> tuple[torch.Tensor, float]:
    """
    The plane that separates points, by a logistic regression in which both sides weigh the same.

    Args:
        points (`torch.Tensor` of shape `(N, D)`): the points.
        is_inside (`torch.Tensor` of shape `(N,)`): bools, the side of each.

    Returns:
        `tuple`: the plane's normal of length 1, `(D,)`, which points inside, in float64; and the share of points, both
        sides alike, that are on their side of it.
    """
    points, mean, std = points.double(), points.double().mean(dim=0), points.double().std(dim=0)
    rows = (points - mean) / std.clamp(min=1e-8)
    targets = is_inside.double()
    weights = torch.where(is_inside, 0.5 / targets.mean(), 0.5 / (1 - targets.mean()))
    plane = torch.zeros(rows.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([plane], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = rows @ plane[:-1] + plane[-1]
        total = nn.functional.binary_cross_entropy_with_logits(logits, targets, weights)
        total = total + RIDGE * plane[:-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    plane = plane.detach()
    is_right = (rows @ plane[:-1] + plane[-1] > 0) == is_inside
    accuracy = 0.5 * (is_right[is_inside].double().mean() + is_right[~is_inside].double().mean())
    normal = plane[:-1] / std.clamp(min=1e-8)
    return normal / normal.norm(), accuracy.item()


def sample_latents(pipe: GANPipeline, number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random latents `(number, latent_dim)`, and labels `(number,)` with all classes alike, if there are any."""
    device = pipe.generator.device
    latents = pipe.prepare_latents(number, device, torch.Generator().manual_seed(seed)).to(pipe.generator.dtype)
    labels = None if pipe.num_classes is None else torch.arange(number, device=device) % pipe.num_classes
    return latents, labels


@torch.no_grad()
def in_batches(function: Callable, latents: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """The rows of `function(latents, labels)`, which is called with a part at a time."""
    parts = [None] * len(latents) if labels is None else labels.split(BATCH)
    return torch.cat([function(*batch) for batch in zip(latents.split(BATCH), parts, strict=False)])


def features_of(
    generator: ModelMixin, module: nn.Module, latents: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    """The outputs of a module of the generator for latents, a row for each."""
    kept = []
    hook = module.register_forward_hook(lambda module, inputs, output: kept.append(output.flatten(1).float()))

    def run(*batch) -> torch.Tensor:
        kept.clear()
        generator(*batch)
        if len(kept) != 1 or len(kept[0]) != len(batch[0]):
            raise ValueError("`layer` must be a module that gives features once for each image.")
        return kept[0]

    try:
        return in_batches(run, latents, labels)
    finally:
        hook.remove()


def style_weights(generator: ModelMixin, layers: list[int] | None = None) -> torch.Tensor:
    """The weights that the styles of layers are multiplied by, `(rows, style_dim)`."""
    affines, position = [], 0
    for block in generator.blocks:
        affines += [(position + index, conv.affine) for index, conv in enumerate(block.convs)]
        position += len(block.convs)
        if block.to_rgb is not None:
            affines.append((position, block.to_rgb.affine))
    return torch.cat([affine.weight.detach() for layer, affine in affines if layers is None or layer in layers])


def first_weights(generator: ModelMixin) -> torch.Tensor:
    """The weights that the latent of a generator is first multiplied by, `(rows, latent_dim)`.

    Raises:
        ValueError: if its first layer is none of latents.
    """
    latent_dim = generator.config.latent_dim
    layers = (module for module in generator.modules() if isinstance(module, (nn.Linear, nn.ConvTranspose2d)))
    first = next(layers, None)
    if first is None:
        raise ValueError(f"A {type(generator).__name__} has no linear layer that the latent is first multiplied by.")
    weight = first.weight.detach()
    weight = weight if isinstance(first, nn.Linear) else weight.flatten(1).T
    if weight.shape[1] < latent_dim:
        raise ValueError(f"The first layer of a {type(generator).__name__} does not take latents.")
    return weight[:, :latent_dim]  # behind the latent there may be classes


def _predict(pipe: GANPipeline, classifier: FeatureExtractor, latents, labels) -> torch.Tensor:
    images = pipe(labels, latents=latents, output_type="pt").images
    return classifier((images * 255).round().byte()).logits.argmax(dim=1)


def _check_number(num_directions: int, most: int):
    if not 1 <= num_directions <= most:
        raise ValueError(f"`num_directions` must be from 1 to {most}, but is {num_directions}.")


def _named(generator, names, vectors, purposes, is_styles: bool, layers=None) -> LatentDirections:
    if isinstance(names, str):
        names = [f"{names}_{index + 1}" for index in range(len(vectors))]
    return LatentDirections(
        dict(zip(names, (vector.float().cpu() for vector in vectors), strict=True)),
        "styles" if is_styles else "latents",
        latent_fingerprint(generator),
        dict(zip(names, purposes, strict=False)),
        {} if layers is None else {name: list(layers) for name in names},
    )
