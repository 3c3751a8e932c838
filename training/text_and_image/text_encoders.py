"""Text encoders of denoisers: a given one of transformers, or a new small one that is trained with the denoiser."""

from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from transformers import (
    AutoConfig,
    AutoModelForTextEncoding,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from diffusers_ext.training.diffusion.denoisers import DenoiserConfig
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.text_and_image.caption_tokenizer import (
    load_tokenizer,
    longest_caption,
    make_caption_tokenizer,
)


SMALL = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass
class TextEncoderConfig(DenoiserConfig):
    """Which text encoder a denoiser reads captions by, and how captions are tokenised."""

    option_group = "network"

    text_encoder: str | None = option(
        help="A text encoder of transformers (T5, CLIP, BERT ...), a local folder or a Hub name, which stays as it "
        "is; by default a small CLIPTextModel is trained with the denoiser."
    )
    train_text_encoder: bool = option(
        False,
        help="Train the text encoder of --text_encoder or --pretrained_model_name_or_path, too, which otherwise stays "
        "as it is.",
    )
    text_config: JSONObject = option(
        JSONObject(), help="Arguments of the configuration of a new CLIPTextModel, as JSON or a YAML mapping."
    )
    tokenizer_name_or_path: str | None = option(
        help="The tokenizer; by default that of --text_encoder, or one that is made from the captions."
    )
    vocabulary_size: int = option(1000, help="At most so many tokens in a tokenizer that is made from the captions.")
    max_caption_length: int | None = option(
        help="The longest text in tokens, those that mark its ends included; by default that of the longest caption."
    )
    caption_dropout: float = option(
        0.1, help="How often a caption is replaced by the empty text in training, so that guidance works."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(514, "vocabulary_size")
        self.require_at_least(3, "max_caption_length")
        self.require(0 <= self.caption_dropout < 1, f"--caption_dropout must be in [0, 1), not {self.caption_dropout}")
        given, pretrained = self.text_encoder is not None, self.pretrained_model_name_or_path is not None
        self.require_default(
            given or pretrained,
            ("train_text_encoder",),
            "is for a given --text_encoder or --pretrained_model_name_or_path: a new text encoder is always trained",
        )
        self.require_default(
            not pretrained,
            ("text_encoder", "text_config", "tokenizer_name_or_path", "vocabulary_size", "max_caption_length"),
            "is for a new model, and --pretrained_model_name_or_path has one",
        )
        self.require_default(not given, ("text_config",), "is for a new text encoder, and not for --text_encoder")
        self.require_default(
            not given and self.tokenizer_name_or_path is None,
            ("vocabulary_size",),
            "is for a tokenizer that is made from the captions",
        )

    def load_tokenizer(self, captions: list[str] | None, cache_dir: str | None) -> PreTrainedTokenizerBase:
        """The tokenizer, whose `model_max_length` is the length that all texts are filled up to.

        Args:
            captions (`list[str]`, *optional*): those of the training; a stream has none before it is read.
            cache_dir (`str`, *optional*): where downloads are kept.

        Raises:
            ValueError: naming the option, if there is no tokenizer, or the captions are needed but not known.
        """
        name = self.tokenizer_name_or_path or self.text_encoder
        if captions is None and (name is None or self.max_caption_length is None):
            missing = "--tokenizer_name_or_path" if name is None else "--max_caption_length"
            raise ValueError(f"The captions of a stream are not known before: give {missing}.")
        if name is None:
            tokenizer = make_caption_tokenizer(captions, self.vocabulary_size)
        else:
            shown = "--tokenizer_name_or_path" if self.tokenizer_name_or_path else "--text_encoder"
            tokenizer = load_tokenizer(name, cache_dir, shown)
        tokenizer.model_max_length = self.max_caption_length or longest_caption(tokenizer, captions)
        return tokenizer

    def build_text_encoder(
        self, tokenizer: PreTrainedTokenizerBase, cache_dir: str | None
    ) -> PreTrainedModel | ModelMixin:
        """The text encoder for the tokens of this tokenizer; a given one is frozen unless it is trained.

        Raises:
            ValueError, OSError: naming the option, if there is none, or if it knows fewer tokens.
        """
        length = tokenizer.model_max_length
        if self.text_encoder is None:
            return new_text_encoder(self.text_config, tokenizer)
        encoder = load_text_encoder(self.text_encoder, cache_dir)
        known, positions = encoder.config.vocab_size, getattr(encoder.config, "max_position_embeddings", None)
        if len(tokenizer) > known:
            raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, but --text_encoder knows only {known}.")
        if positions is not None and length > positions:
            raise ValueError(
                f"The longest caption has {length} tokens, but --text_encoder reads {positions}: give that as "
                "--max_caption_length, which cuts the captions."
            )
        return encoder.requires_grad_(self.train_text_encoder)


def new_text_encoder(text_config: dict, tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
    """A CLIPTextModel with random weights for the tokens of a tokenizer, whose words differ from the start.

    With the usual small embeddings, a denoiser learns to draw long before it learns to read.

    Raises:
        ValueError: naming `--text_config`, if its arguments are no network.
    """
    config = build_network(
        CLIPTextConfig,
        "--text_config",
        text_config,
        usual=SMALL,
        decided={
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    )
    encoder = CLIPTextModel(config)
    with torch.no_grad():
        embeddings = encoder.get_input_embeddings().weight.normal_()
        embeddings[[tokenizer.bos_token_id, tokenizer.eos_token_id]] = 0.0
    return encoder


def load_text_encoder(name: str, cache_dir: str | None) -> PreTrainedModel:
    """The text encoder of a folder or a Hub name; of a CLIPModel, as train_clip.py saves it, the text tower.

    Raises:
        OSError, ValueError: naming `--text_encoder`, if there is none.
    """
    try:
        config = AutoConfig.from_pretrained(name, cache_dir=cache_dir)
        if config.model_type in ("clip", "clip_text_model"):
            return CLIPTextModel.from_pretrained(name, cache_dir=cache_dir)
        return AutoModelForTextEncoding.from_pretrained(name, cache_dir=cache_dir)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise type(error)(f"--text_encoder {name} is no text encoder of transformers: {reason}") from error
