import pytest
import torch
from diffusers import AmusedScheduler
from transformers import BertConfig, BertForMaskedLM

from diffusers_ext.schedulers import MaskGITScheduler
from tests.schedulers.golden_cases import load_case


ORIGINAL_NAMES = {
    "cosine": "cosine",
    "linear": "uniform",
    "square": "pow2",
    "cubic": "pow3",
    "square_root": "pow0.5",
    "exponential": "exp",
    "logarithmic": "log",
}


@pytest.mark.parametrize("schedule", ORIGINAL_NAMES)
def test_schedules_are_the_original_ones(schedule):
    _, inputs, outputs = load_case("maskgit", "schedules")
    scheduler = MaskGITScheduler(3, schedule)
    found = torch.stack([scheduler.mask_ratio(inputs["ratio"], number) for number in inputs["total_unknown"]])
    torch.testing.assert_close(found, outputs[ORIGINAL_NAMES[schedule]], rtol=0, atol=1e-6)


def original_transformer(config: dict, weights: dict[str, torch.Tensor]) -> BertForMaskedLM:
    """The network of google-research/maskgit, whose weights are those of flax, as transformers' BERT."""
    vocabulary = config["codebook_size"] + config["num_class"] + 1
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary,
            type_vocab_size=1,
            hidden_act="gelu_pytorch_tanh",
            layer_norm_eps=1e-12,
            **{name: config[name] for name in names},
        )
    ).eval()
    width = config["hidden_size"]
    parts = {
        "bert.embeddings.LayerNorm": "Embed_0.embeddings_ln",
        "cls.predictions.transform.dense": "MlmLayer_0.mlm_dense",
        "cls.predictions.transform.LayerNorm": "MlmLayer_0.mlm_ln",
    }
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"bert.encoder.layer.{layer}", f"TransformerLayer_{layer}"
        for name in ("query", "key", "value"):
            parts[f"{ours}.attention.self.{name}"] = f"{theirs}.Attention_0.self_attention.{name}"
        parts |= {
            f"{ours}.attention.output.dense": f"{theirs}.Attention_0.self_attention.out",
            f"{ours}.attention.output.LayerNorm": f"{theirs}.Attention_0.attention_output_ln",
            f"{ours}.intermediate.dense": f"{theirs}.Mlp_0.intermediate_output",
            f"{ours}.output.dense": f"{theirs}.Mlp_0.layer_output",
            f"{ours}.output.LayerNorm": f"{theirs}.Mlp_0.layer_output_ln",
        }
    state = {
        "bert.embeddings.word_embeddings.weight": weights["Embed_0.word_embeddings.embedding"],
        "bert.embeddings.position_embeddings.weight": weights["Embed_0.position_embeddings.embedding"],
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(1, width),
        "cls.predictions.bias": weights["MlmLayer_0.mlm_bias.bias"],
        "cls.predictions.decoder.bias": weights["MlmLayer_0.mlm_bias.bias"],
        "cls.predictions.decoder.weight": weights["Embed_0.word_embeddings.embedding"],
    }
    for ours, theirs in parts.items():
        state[f"{ours}.bias"] = weights[f"{theirs}.bias"].flatten()
        if f"{theirs}.scale" in weights:
            state[f"{ours}.weight"] = weights[f"{theirs}.scale"]
        else:
            kernel = weights[f"{theirs}.kernel"]  # (in, ..., out), in and out perhaps by heads
            fan_in = width if kernel.shape[0] == width else kernel.numel() // width
            state[f"{ours}.weight"] = kernel.reshape(fan_in, -1).T
    bert.load_state_dict(state)
    return bert


def load_network_case(name: str) -> tuple:
    config, inputs, outputs = load_case("maskgit", name)
    weights = {
        name: inputs.pop(name) for name in list(inputs) if name.endswith((".bias", ".kernel", ".scale", "ding"))
    }
    inputs["input_ids"] = inputs["input_ids"] % (config["codebook_size"] + config["num_class"] + 1)  # -1 is the last
    return config, inputs, outputs, weights


@torch.no_grad()
def test_berts_logits_are_those_of_the_original_transformer():
    config, inputs, outputs, weights = load_network_case("transformer")
    logits = original_transformer(config, weights)(inputs["input_ids"]).logits
    torch.testing.assert_close(logits, outputs["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, schedule", [("decode_cosine", "cosine"), ("decode_edit_pow2", "square")])
@torch.no_grad()
def test_steps_draw_and_mask_the_tokens_of_the_original(name, schedule):
    config, inputs, outputs, weights = load_network_case(name)
    network, codes = original_transformer(config, weights), config["codebook_size"]
    mask = codes + config["num_class"]
    scheduler = MaskGITScheduler(mask, schedule, config["choice_temperature"], config["num_iter"])
    prefix, tokens = inputs["input_ids"].split([1, inputs["input_ids"].shape[1] - 1], dim=1)
    num_unknown = (tokens == mask).sum(dim=1, keepdim=True)
    for step, timestep in enumerate(scheduler.timesteps[config["start_iter"] :]):
        logits = network(torch.cat([prefix, tokens], dim=1)).logits[:, 1:, :codes]
        noise = inputs["gumbel_tokens"][step, :, 1:], inputs["gumbel_choice"][step, :, 1:]
        tokens, drawn = scheduler.step(logits, timestep, tokens, *noise, num_unknown, return_dict=False)
        assert torch.equal(drawn, outputs["final_seqs"][:, config["start_iter"] + step, 1:])
        if timestep > 0:  # the original masks again after the last step too, without a use
            assert torch.equal(tokens == mask, outputs["remasked"][step, :, 1:])


def test_as_many_tokens_are_masked_as_the_schedule_says():
    scheduler = MaskGITScheduler(9)
    tokens, progress = torch.zeros(3, 10, dtype=torch.int64), torch.tensor([0.0, 2 / 3, 1.0])
    uniforms = torch.rand(3, 10, generator=torch.Generator().manual_seed(0))
    masked = scheduler.add_noise(tokens, uniforms, progress) == 9
    assert masked.sum(dim=1).tolist() == [10, 5, 1]
    assert masked[2].nonzero().item() == uniforms[2].argmin()


def gumbel(*shape: int) -> torch.Tensor:
    uniforms = torch.rand(shape, generator=torch.Generator().manual_seed(1)).clamp(1e-20)
    return -torch.log((-torch.log(uniforms)).clamp(1e-20))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_steps_mask_as_many_tokens_as_those_of_diffusers(schedule):
    scheduler, other = MaskGITScheduler(5, schedule), AmusedScheduler(5, schedule)
    other.set_timesteps(8)
    sample = torch.full((2, 16), 5)
    theirs, logits = sample.clone(), 3 * gumbel(2, 16, 5)
    for timestep in scheduler.timesteps:
        output = scheduler.step(logits, timestep, sample, gumbel(2, 16, 5), gumbel(2, 16))
        theirs = other.step(logits, timestep, theirs, generator=torch.Generator().manual_seed(0)).prev_sample
        kept, sample = sample != 5, output.prev_sample
        assert torch.equal(output.pred_original_sample.where(~kept, sample), output.pred_original_sample)
        assert torch.equal((sample == 5).sum(dim=1), (theirs == 5).sum(dim=1))
    assert (sample < 5).all()


def test_without_temperature_the_most_certain_tokens_stay():
    scheduler = MaskGITScheduler(2, "linear", choice_temperature=0, num_inference_steps=4)
    logits = torch.tensor([[[5.0, 0.0], [1.0, 0.0], [9.0, 0.0], [0.5, 0.0]]])
    output = scheduler.step(logits, 3, torch.full((1, 4), 2), torch.zeros_like(logits), gumbel(1, 4))
    assert output.prev_sample.tolist() == [[2, 2, 0, 2]] and output.pred_original_sample.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"masking_schedule": "sine"}, "`masking_schedule` must be one of cosine, arccos"),
        ({"choice_temperature": -1.0}, "`choice_temperature` must be finite and at least 0, but is -1.0"),
        ({"choice_temperature": float("nan")}, "`choice_temperature` must be finite and at least 0, but is nan"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be a positive integer, but is 0"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps` must be a positive integer, but is 2.5"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskGITScheduler(3, **arguments)
