"""Train a transformer that fills in masked image tokens, and draws all tokens of an image in a few steps.

    accelerate launch training/train_maskgit.py --config examples/digits_maskgit.yaml

MaskGIT (Chang et al. 2022): a bidirectional transformer, [`BertForMaskedLM`] of transformers, on the codes of a frozen
autoencoder. The result is a [`MaskGITPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForMaskedLM

from diffusers_ext.pipelines import MaskGITPipeline
from diffusers_ext.pipelines.image_tokens import get_label_prefix
from diffusers_ext.schedulers import MaskGITScheduler
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.tokens.token_recipe import TokenConfig, TokenRecipe, build_transformer


USUAL = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}


class MaskGITRecipe(TokenRecipe):
    """Chang et al. 2022, section 3.1: predict the masked tokens from the others, whatever fraction is masked."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The transformer of codes, with a token for each label and one for what is masked, as the original has it."""
        decided = {
            "vocab_size": self.tokens.num_codes + self.num_labels + 1,
            "max_position_embeddings": 1 + self.length,
            "type_vocab_size": 1,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-12,
            "tie_word_embeddings": False,  # the original ties them
        }
        given = self.config.transformer
        transformer = build_transformer(BertForMaskedLM, BertConfig, given, usual=USUAL, decided=decided)
        transformer.cls.predictions.bias.requires_grad_(False)  # the name of the decoder's bias where they are tied
        return {"transformer": transformer}

    def step(self, batch, draw):
        codes, labels = self.image_codes(batch), self.labels(batch, draw)
        masked = self.scheduler.add_noise(codes, draw.uniform(self.length), progress=draw.uniform())
        prefix = get_label_prefix(labels, len(codes), self.tokens.num_codes, codes.device)

        logits = self.transformer(torch.cat([prefix, masked], dim=1)).logits[:, 1:, : self.tokens.num_codes]

        errors = F.cross_entropy(
            logits.transpose(1, 2), codes, reduction="none", label_smoothing=self.config.label_smoothing
        )
        is_masked = masked == self.scheduler.config.mask_token_id
        # each masked token of the batch counts the same (eq. 2)
        share = self.context.all_rows(is_masked.float().sum(dim=1)).mean()
        self.minimise("transformer", (errors * is_masked).sum(dim=1) / share)

    def pipeline(self, transformer) -> MaskGITPipeline:
        """The pipeline that draws images with the mask schedule of the training."""
        return MaskGITPipeline(
            transformer,
            self.tokens.vqvae,
            self.scheduler,
            **self.token_sides,
            id2label=self.id2label,
            null_class_label=self.null_class_label,
        )

    # What stands around the algorithm

    def __init__(self, config: MaskGITConfig, context):
        super().__init__(config, context)
        self.scheduler = MaskGITScheduler(
            mask_token_id=self.tokens.num_codes + self.num_labels,
            masking_schedule=config.masking_schedule,
            choice_temperature=config.choice_temperature,
            num_inference_steps=config.num_inference_steps,
        )

    def identity(self) -> dict:
        return {**super().identity(), "masking_schedule": self.config.masking_schedule}

    def describe(self) -> dict:
        kind, names = self.kind, self.id2label
        call = "batch_size=4" if names is None else f"class_labels={list(names.values())[:2]}, num_images_per_label=4"
        return {
            "task": f"{kind.capitalize()} image generation by filling in masked tokens (MaskGIT): a transformer of "
            f"the codes of its {type(self.tokens.vqvae).__name__}, trained from random weights.",
            "usage": f"images = pipe({call}).images\n"
            "changed = pipe(image=images[0], mask_image=(0, 0, 4, 4)"
            + (f", class_labels={next(iter(names.values()))!r}" if names else "")
            + ").images[0]",
            "tags": [f"{kind}-image-generation", "maskgit", "masked-image-modeling"],
        }


@dataclass
class MaskGITConfig(TokenConfig):
    """The options of train_maskgit.py."""

    masking_schedule: Literal[
        "cosine", "arccos", "linear", "square", "cubic", "square_root", "exponential", "logarithmic"
    ] = option(
        "cosine", help="How many tokens are masked, in training and in drawing (Chang et al. 2022, section 3.3)."
    )
    label_smoothing: float = option(0.1, help="The part of the target that is spread over all codes.")
    num_inference_steps: int = option(8, help="The steps of drawing.", group="evaluation")
    choice_temperature: float = option(
        4.5,
        help="The randomness in the choice of the tokens that are kept: more is more diverse.",
        group="evaluation",
    )
    adam_beta2: float = option(0.96, help="AdamW: the decay of the mean of the squared gradients.")
    adam_weight_decay: float = option(0.045, help="AdamW: the weight decay.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_inference_steps")
        self.require_at_least(0, "choice_temperature")
        self.require(0 <= self.label_smoothing < 1, f"--label_smoothing must be in [0, 1), not {self.label_smoothing}")


if __name__ == "__main__":
    run(MaskGITRecipe, MaskGITConfig)
