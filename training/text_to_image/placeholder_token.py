"""A new word for frozen text encoders: trained vectors in the place of token embeddings."""

import copy
import unicodedata

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import TextualInversionLoaderMixin

from diffusers_ext.training.text_to_image.base_models import BaseModel


class PlaceholderVectors(ModelMixin, ConfigMixin):
    """The vectors that a placeholder stands for, several for each text encoder.

    Args:
        num_vectors (`int`): the number of vectors for each text encoder.
        widths (`dict[str, int]`): the width of token embeddings, by the name of the text encoder.
    """

    _supports_gradient_checkpointing = True  # there is nothing to save here, but the networks of the base have it

    @register_to_config
    def __init__(self, num_vectors: int, widths: dict[str, int]):
        super().__init__()
        self.vectors = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(torch.zeros(num_vectors, width)) for name, width in widths.items()}
        )

    def forward(self) -> dict[str, torch.Tensor]:
        """The vectors, of shape (num_vectors, width), by the name of the text encoder."""
        # Copies: with FSDP, the weights themselves are divided again after this call.
        return {name: vectors.clone() for name, vectors in self.vectors.items()}

    def enable_gradient_checkpointing(self) -> None:
        """Does nothing: there are no activations."""


class ExtendedEmbedding(torch.nn.Module):
    """A token embedding with further vectors for the ids from `first_id` on.

    Args:
        embedding (`torch.nn.Embedding`): embeds the other ids; it stays unchanged.
        first_id (`int`): the id of the first further vector.
    """

    def __init__(self, embedding: torch.nn.Embedding, first_id: int):
        super().__init__()
        self.embedding, self.first_id = embedding, first_id
        # In a list, which hides a parameter from the modules around this one.
        self._vectors = []

    @property
    def weight(self) -> torch.Tensor:
        return self.embedding.weight

    def set_vectors(self, vectors: torch.Tensor) -> None:
        """Use these vectors, (num_vectors, width), from now on."""
        self._vectors = [vectors]

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Token ids (N, L) -> embeddings (N, L, width)."""
        own = self.embedding(token_ids.clamp(max=self.first_id - 1))
        further = self._vectors[0].to(own.dtype)[(token_ids - self.first_id).clamp(min=0)]
        return torch.where((token_ids >= self.first_id)[..., None], further, own)


class Placeholder:
    """A new word of one or several tokens, in all CLIP text encoders of a base.

    Its tokens have the names that `load_textual_inversion` of diffusers gives them: `<word>`, `<word>_1`, ...

    Args:
        base ([`BaseModel`]): the base.
        word (`str`): the word as it is written in prompts.
        num_vectors (`int`): the number of its tokens.

    Raises:
        ValueError: if it contains spaces, or a tokenizer knows it already, or does not find its tokens in a prompt.
    """

    def __init__(self, base: BaseModel, word: str, num_vectors: int):
        self.base, self.word = base, word
        self.tokens = [word, *(f"{word}_{index}" for index in range(1, num_vectors))]
        self.names = base.learning_text_encoders
        self._readers = {}
        self._lengths = {name: ids.shape[1] for name, ids in base.tokenize([""]).items()}
        if word.split() != [word]:
            raise ValueError(f"--placeholder_token must be one word without spaces, not {word!r}.")
        for name in self.names:
            tokenizer = base.tokenizers[name]
            known = tokenizer.get_vocab()
            taken = [token for token in (*self.tokens, f"{word}_1", f"{word.lower()}</w>") if token in known]
            if taken:
                raise ValueError(
                    f"The tokenizer of {base.name} already knows --placeholder_token {word}, as {taken[0]}: choose "
                    f"another word, such as <my-{word.strip('<>')}>."
                )
            self._readers[name] = copy.deepcopy(tokenizer)
            self._readers[name].add_tokens(self.tokens)
            self._check_reading(self._readers[name])

    def _check_reading(self, tokenizer) -> None:
        """Refuse a word of which a prompt does not contain all tokens, in diffusers as in training."""
        prompt = TextualInversionLoaderMixin().maybe_convert_prompt(f"a {self.word}, b", tokenizer)
        found = tokenizer(prompt, add_special_tokens=False).input_ids
        own = tokenizer.convert_tokens_to_ids(self.tokens)
        if [token for token in found if token in own] != own:
            raise ValueError(
                f"The tokenizer of {self.base.name} reads --placeholder_token {self.word} as "
                f"{' '.join(tokenizer.tokenize(self.word))}, so that not all of its vectors would be used: write it "
                f"in lower-case letters without accents, such as {self._plain_word()}."
            )

    def _plain_word(self) -> str:
        letters = unicodedata.normalize("NFKD", self.word.lower()).encode("ascii", "ignore").decode()
        return letters if any(letter.isalnum() for letter in letters) else "<my-word>"

    def initial_vectors(self, initializer: str | None) -> PlaceholderVectors:
        """Vectors that start as the embeddings of known words.

        Args:
            initializer (`str`, *optional*): a word of one token, from which all vectors start, or of as many tokens
                as there are vectors; by default, all vectors start from the mean of all embeddings.

        Raises:
            ValueError: if it has another number of tokens.
        """
        starts = {}
        for name in self.names:
            embeddings = self.base.text_encoders[name].get_input_embeddings().weight.detach()
            tokenizer = self.base.tokenizers[name]
            if initializer is None:
                starts[name] = embeddings[: len(tokenizer)].mean(dim=0)
                continue
            ids = tokenizer(initializer, add_special_tokens=False).input_ids
            if len(ids) not in (1, len(self.tokens)):
                raise ValueError(
                    f"--initializer_token {initializer!r} is {len(ids)} tokens for the tokenizer of "
                    f"{self.base.name}: choose a word of one token"
                    + (f", or --num_vectors {len(ids)}, where each vector starts from one token." if ids else ".")
                )
            starts[name] = embeddings[ids]
        vectors = PlaceholderVectors(len(self.tokens), {name: start.shape[-1] for name, start in starts.items()})
        with torch.no_grad():
            for name, start in starts.items():
                vectors.vectors[name].copy_(start)
        return vectors

    def fits(self, prompt: str) -> bool:
        """Whether the first occurrence of the word in a prompt is not truncated."""
        before = prompt[: prompt.index(self.word)]
        return all(
            len(self.base.tokenizers[name](before).input_ids) + len(self.tokens) <= self._lengths[name]
            for name in self.names
        )

    def num_tokens(self, name: str, prompts: list[str]) -> list[int]:
        """How many tokens each prompt has for a text encoder, with all of the word; see [`BaseModel.num_tokens`]."""
        prompts = TextualInversionLoaderMixin().maybe_convert_prompt(prompts, self._readers[self.names[0]])
        tokenizer = self._readers.get(name, self.base.tokenizers[name])
        return [len(row) for row in tokenizer(prompts, truncation=False, verbose=False).input_ids]

    def install(self) -> None:
        """Add the word to the tokenizers, and extend the token embeddings; see [`~Placeholder.set_vectors`]."""
        self.embeddings = {}
        for name in self.names:
            tokenizer, encoder = self.base.tokenizers[name], self.base.text_encoders[name]
            # Two encoders of a pipeline in memory may share a tokenizer, to which the word is added only once.
            tokenizer.add_tokens(self.tokens)
            first_id = tokenizer.convert_tokens_to_ids(self.word)
            self.embeddings[name] = ExtendedEmbedding(encoder.get_input_embeddings(), first_id)
            encoder.set_input_embeddings(self.embeddings[name])

    def set_vectors(self, vectors: dict[str, torch.Tensor]) -> None:
        """Embed the word as these vectors, (num_vectors, width) by the name of the text encoder."""
        for name, embedding in self.embeddings.items():
            embedding.set_vectors(vectors[name])

    def expand(self, prompts: list[str]) -> list[str]:
        """Prompts with all tokens of the word, where the base's pipeline does not insert them itself."""
        if hasattr(self.base.pipeline, "maybe_convert_prompt"):
            return prompts
        tokenizer = self.base.tokenizers[self.names[0]]
        return TextualInversionLoaderMixin().maybe_convert_prompt(prompts, tokenizer)
