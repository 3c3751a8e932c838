"""Find directions in the latent space of a GAN, for `pipe.edit`, and write them to a safetensors file.

    python -m diffusers_ext.training.find_directions outputs/digits_stylegan2 classes.safetensors --method classes

Methods: `principal`, the principal components of styles or features (GANSpace); `factorized`, eigenvectors of the
weights (SeFa); `classes`, planes between classes (InterFaceGAN), and `means`, the ways between their means, where the
generator or a classifier knows the classes.
"""

from diffusers_ext.training.loop.command import one_sentence

import argparse

from safetensors import SafetensorError

from diffusers_ext.metrics.extractors import load_feature_extractor
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.pipelines.latent_directions import LatentDirections
from diffusers_ext.training.adversarial.directions import (
    class_directions,
    factorized_directions,
    mean_directions,
    principal_directions,
)
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline


OPTIONS = {
    "principal": ("num_directions", "num_samples", "layer"),
    "factorized": ("num_directions", "layers"),
    "classes": ("num_samples", "classifier"),
    "means": ("num_samples", "classifier"),
}


def find_directions(pipe: GANPipeline, method: str, **options) -> LatentDirections:
    """
    Directions by one of the methods.

    Args:
        pipe ([`GANPipeline`]): the pipeline of the generator.
        method (`str`): `"principal"`, `"factorized"`, `"classes"` or `"means"`.
        options: those of [`principal_directions`], [`factorized_directions`], [`class_directions`] or
            [`mean_directions`].

    Raises:
        ValueError: if the method or an option does not fit the generator.
    """
    functions = {
        "principal": principal_directions,
        "factorized": factorized_directions,
        "classes": class_directions,
        "means": mean_directions,
    }
    return functions[method](pipe, **options)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", help="The folder or Hub name of a GANPipeline.")
    parser.add_argument("output", help="The safetensors file to write.")
    parser.add_argument("--method", choices=list(OPTIONS), required=True, help="How directions are found.")
    parser.add_argument("--num_directions", type=int, help="principal, factorized: how many; by default 10.")
    parser.add_argument(
        "--num_samples", type=int, help="principal, classes, means: how many random images; by default 4000."
    )
    parser.add_argument("--layer", help="principal: the module whose features are taken, without styles.")
    parser.add_argument("--layers", type=int, nargs="+", help="factorized: the layers of styles; by default all.")
    parser.add_argument(
        "--classifier", help="classes, means: digits, or the folder or Hub name of an image classifier."
    )
    parser.add_argument("--seed", type=int, default=0, help="The seed of the random images.")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Find directions as the command line says."""
    parser = build_parser()
    given = vars(parser.parse_args(arguments))
    for name, value in given.items():
        if value == []:  # argparse reads "--name=--" as no value at all
            parser.error(f"--{name} needs a value")
    folder, output, method, seed = (given.pop(name) for name in ("pipeline", "output", "method", "seed"))
    with one_sentence(ValueError, OSError, ImportError, SafetensorError, status=2):
        options = {name: value for name, value in given.items() if value is not None}
        for name in options:
            if name not in OPTIONS[method]:
                raise ValueError(f"--{name} is not for --method {method}.")
        for name in ("num_directions", "num_samples"):
            least = 2 if name == "num_samples" else 1
            if options.get(name, least) < least:
                raise ValueError(f"--{name} must be at least {least}, not {options[name]}.")
        if "classifier" in options:
            options["classifier"] = load_feature_extractor(options["classifier"])
        pipe = load_pipeline(folder, None, "pipeline", GANPipeline)
        directions = find_directions(pipe, method, seed=seed, **options)
        directions.save(output)
    for name, purpose in directions.purposes.items():
        print(f"{name}: {purpose}")
    print(f"Wrote {output}: {len(directions.vectors)} directions of {directions.space}.")


if __name__ == "__main__":
    main()
