"""A Stable Diffusion pipeline small enough for a laptop: an untrained text encoder and UNet around a trained VAE.

    python examples/mini_text_to_image/make_base.py --vae outputs/mini/vae/autoencoder --output_dir outputs/mini/base

training/train_text_to_image.py trains it from scratch. The tokenizer knows all bytes, so it reads any text, and has
learned to read the words of the captions as one token each.
"""

import argparse

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_ext.data import load_image_dataset
from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer


PROMPT_LENGTH = 12  # tokens
WIDTH = 64  # of the text embeddings
TEXT_GAIN = 3.0  # the weights through which the text affects the image start larger by this factor


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An encoder whose output depends on the words from the start: the embeddings of start and end tokens are 0."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        embeddings = encoder.embeddings.token_embedding.weight.normal_()
        embeddings[[tokenizer.bos_token_id, tokenizer.eos_token_id]] = 0.0
    return encoder


def make_unet(latent_size: int, latent_channels: int) -> UNet2DConditionModel:
    """A network that the text affects from the start; otherwise it learns to draw long before it learns to read."""
    unet = UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
    )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith(("attn2.to_v.weight", "attn2.to_out.0.weight")):
                weight.mul_(TEXT_GAIN)
    return unet


def make_base(vae_folder: str, data_folder: str, output_dir: str, seed: int) -> None:
    """Write the pipeline."""
    vae = AutoencoderKL.from_pretrained(vae_folder)
    resolution = vae.config.sample_size
    dataset = load_image_dataset(
        train_data_dir=data_folder, resolution=resolution, label_column="none", caption_column="text"
    )
    torch.manual_seed(seed)
    tokenizer = make_caption_tokenizer(dataset.captions)
    tokenizer.model_max_length = PROMPT_LENGTH
    latent_size = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(latent_size, vae.config.latent_channels),
        scheduler=DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            steps_offset=1,  # the pipeline requires it, and trailing steps don't use it
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(output_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", default="outputs/mini/vae/autoencoder", help="The folder of an AutoencoderKL.")
    parser.add_argument("--data_dir", default="outputs/mini/data/captioned", help="Captioned images.")
    parser.add_argument("--output_dir", default="outputs/mini/base", help="Where the pipeline goes.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the random weights.")
    options = parser.parse_args()
    make_base(options.vae, options.data_dir, options.output_dir, options.seed)


if __name__ == "__main__":
    main()
