r"""Train a text-to-image model on captioned images: all its weights, or low-rank adapters (LoRA).

    accelerate launch training/train_text_to_image.py --pretrained_model_name_or_path <base> \
        --train_data_dir ~/captioned --lora_rank 16

Without `--lora_rank` the result is the whole pipeline. With it, the result is `pytorch_lora_weights.safetensors`,
which `load_lora_weights` of the base's pipeline reads. A base with random weights is trained from scratch.

train_dreambooth.py extends this recipe, which is therefore in text_to_image/fine_tuning.py.
"""

from diffusers_ext.training.loop.command import run

from diffusers_ext.training.text_to_image.fine_tuning import FineTuningConfig, FineTuningRecipe


if __name__ == "__main__":
    run(FineTuningRecipe, FineTuningConfig)
