"""Autoencoders: ours against pythae's, with networks of the same layers, trained as long on the same images.

    pip install pythae
    python -m tests.benchmarks.bench_pythae --train_data_dir ~/data/mnist --seconds 120 --feature_extractor lenet

Both train in one process and one thread, with their own loops and data loading, batches of 100 images, and the same
optimizer and learning rate, until each has used so many seconds of processor time. Our result is the average of the
weights, as usual. The measures on the test split are the error of reconstructions (of values in [0, 1]), the evidence
lower bound with one draw of latents per image (nats, up to the constant of a normal decoder of variance 1), and the
FID of as many samples as there are test images, with the given feature network. pythae
(https://github.com/clementchadebec/benchmark_VAE) is not a dependency of this package.
"""

import argparse
import logging
import tempfile
import time
from importlib.util import find_spec

import torch

from diffusers_ext.data import load_image_dataset
from diffusers_ext.losses import reconstruction_error, standard_normal_kl
from diffusers_ext.metrics import extract_features, fid, load_feature_extractor
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_autoencoder import AutoencoderConfig, autoencoder_recipe


LATENT_DIM, NUM_CODES, BETA = 16, 256, 2.0
BATCH_SIZE, LEARNING_RATE = 100, 1e-3
MLP = {"hidden_dims": [512], "latent_dim": LATENT_DIM}
OURS = {
    "AE": {"architecture": "mlp", "autoencoder": MLP, "objective": "autoencoder"},
    "VAE": {"architecture": "mlp", "autoencoder": MLP, "objective": "vae"},
    "beta-VAE": {"architecture": "mlp", "autoencoder": MLP, "objective": "beta_vae", "beta": BETA},
    # Like pythae's: each number of the code is quantised on its own.
    "VQ-VAE": {
        "architecture": "vqvae",
        "autoencoder": {
            **MLP,
            "body": "mlp",
            "num_embeddings": NUM_CODES,
            "embedding_dim": 1,
            "output_activation": "sigmoid",
            "sample_range": [0.0, 1.0],
        },
    },
}


class OurAutoencoder:
    """Trains one of `OURS`, and runs it on images in [0, 1]."""

    def __init__(self, name: str, data: dict, seconds: float, seed: int):
        config = AutoencoderConfig(
            **data,
            **OURS[name],
            reconstruction_loss="mse",
            train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            lr_scheduler="constant",
            ema_decay=0.99,
            max_train_steps=10**9,
            seed=seed,
            output_dir=tempfile.mkdtemp(),
        )
        accelerator = build_accelerator()
        trainer = Trainer(autoencoder_recipe(config, TrainingContext(accelerator)), accelerator)
        trainer.start()
        started = time.process_time()
        while time.process_time() - started < seconds:
            trainer.update()
            trainer.reports.read()
        self.seconds, self.steps = time.process_time() - started, trainer.step
        self.network = trainer.networks["autoencoder"].eval()
        self.network.load_state_dict(trainer.averages["autoencoder"].state_dict())

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).sample

    def posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distribution = self.network.encode(images).latent_dist
        return distribution.mean, distribution.logvar

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.network.decode(latents).sample


class PythaeAutoencoder:
    """The same for pythae's models. Its trainer is stopped between two steps when the time is up."""

    def __init__(self, name: str, images: torch.Tensor, seconds: float, seed: int):
        from pythae.models import AE, VAE, VQVAE, AEConfig, BetaVAE, BetaVAEConfig, VAEConfig, VQVAEConfig
        from pythae.pipelines.training import TrainingPipeline
        from pythae.trainers import BaseTrainerConfig
        from pythae.trainers.training_callbacks import TrainingCallback

        class TimeIsUpError(Exception):
            pass

        class Clock(TrainingCallback):
            steps, started = 0, 0.0

            def on_train_begin(self, training_config, **kwargs):
                self.started = time.process_time()

            def on_train_step_end(self, training_config, **kwargs):
                self.steps += 1
                if time.process_time() - self.started >= seconds:
                    raise TimeIsUpError

        shape = {"input_dim": tuple(images.shape[1:]), "latent_dim": LATENT_DIM}
        makers = {
            "AE": lambda: AE(AEConfig(**shape)),
            "VAE": lambda: VAE(VAEConfig(**shape, reconstruction_loss="mse")),
            "beta-VAE": lambda: BetaVAE(BetaVAEConfig(**shape, reconstruction_loss="mse", beta=BETA)),
            "VQ-VAE": lambda: VQVAE(VQVAEConfig(**shape, num_embeddings=NUM_CODES, use_ema=True)),
        }
        torch.manual_seed(seed)
        self.network, clock = makers[name](), Clock()
        training = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            num_epochs=10**6,
            no_cuda=True,
            seed=seed,
        )
        try:
            TrainingPipeline(model=self.network, training_config=training)(
                train_data=images.numpy(), callbacks=[clock]
            )
        except TimeIsUpError:
            self.seconds, self.steps = time.process_time() - clock.started, clock.steps
        self.network.eval()

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        if hasattr(self.network, "quantizer"):
            return self.network({"data": images}).recon_x
        return self.decode(self.network.encoder(images).embedding)

    def posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.network.encoder(images)
        return output.embedding, output.log_covariance

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.network.decoder(latents).reconstruction


@torch.no_grad()
def measure(name: str, autoencoder, images: torch.Tensor, extractor) -> dict[str, float]:
    """The measures of one model on the test images, (N, 1, H, W) in [0, 1]."""
    reconstructions = torch.cat([autoencoder.reconstruct(batch) for batch in images.split(500)])
    row = {"mse": (reconstructions.reshape(images.shape) - images).square().mean().item()}
    if "VAE" in name and name != "VQ-VAE":
        noise = torch.randn((len(images), LATENT_DIM), generator=torch.Generator().manual_seed(0))
        mean, logvar = map(torch.cat, zip(*map(autoencoder.posterior, images.split(500)), strict=True))
        decoded = autoencoder.decode(mean + (0.5 * logvar).exp() * noise).reshape(images.shape)
        kl = standard_normal_kl(mean, logvar).sum(dim=1)
        row["elbo"] = -(reconstruction_error("mse", decoded, images) + kl).mean().item()
        row["fid"] = fid(*(features(extractor, part) for part in (images, autoencoder.decode(noise))))
    return row


def features(extractor, images: torch.Tensor) -> torch.Tensor:
    levels = images.reshape(len(images), 1, *images.shape[-2:]).mul(255).round().to(torch.uint8)
    return extract_features(extractor, levels, batch_size=500).features


def load_images(data: dict, split: str) -> torch.Tensor:
    dataset = load_image_dataset(
        dataset_name=data["dataset_name"],
        train_data_dir=data["train_data_dir"],
        split=split,
        resolution=data["resolution"][0],
        channels=1,
    )
    return torch.cat([batch["pixel_values"] for batch in dataset.reference_batches(1000)]).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset_name")
    parser.add_argument("--train_data_dir")
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument("--seconds", type=float, default=60.0, help="The processor time of each model.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--feature_extractor", default="digits")
    arguments = parser.parse_args()
    if find_spec("pythae") is None:
        print("pythae is not installed, so there is nothing to compare with: pip install pythae")
        return
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    data = {
        "dataset_name": arguments.dataset_name,
        "train_data_dir": arguments.train_data_dir,
        "resolution": [arguments.resolution],
        "channels": 1,
    }
    train, test = load_images(data, "train"), load_images(data, "test")
    extractor = load_feature_extractor(arguments.feature_extractor)
    floor = fid(features(extractor, train), features(extractor, test))
    print(f"{len(train)} images, {len(test)} for the test, whose FID to the others is {floor:.3f} ({extractor.name})")
    print("| model | seed | | steps | mse | elbo | fid |\n|---|---|---|---|---|---|---|")
    for name in arguments.models:
        for seed in arguments.seeds:
            for library, autoencoder in (
                ("pythae", PythaeAutoencoder(name, train, arguments.seconds, seed)),
                ("diffusers_ext", OurAutoencoder(name, data, arguments.seconds, seed)),
            ):
                row = measure(name, autoencoder, test, extractor)
                values = [f"{row[key]:.5g}" if key in row else "" for key in ("mse", "elbo", "fid")]
                print(f"| {name} | {seed} | {library} | {autoencoder.steps} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
