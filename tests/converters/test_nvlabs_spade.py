"""The networks of NVlabs/SPADE."""

import pytest
import torch

from diffusers_ext.converters import (
    convert_checkpoint,
    convert_spade_discriminator,
    convert_spade_encoder,
    convert_spade_generator,
)
from diffusers_ext.models import MultiScalePatchDiscriminator, SPADEEncoder
from diffusers_ext.pipelines import SemanticSynthesisPipeline
from tests.converters.cases import assert_near, load_case, save


FAMILY = "spade"
GENERATORS = {
    "G_spectral_batch": {"crop_size": 32, "no_instance": True},
    "G_vae_instance": {"crop_size": 64, "no_instance": True},
}


def generator_output(network, case):
    with torch.no_grad():
        return network(case.inputs["seg"], case.inputs.get("z")).sample


@pytest.mark.parametrize("name, options", GENERATORS.items())
def test_golden_generators(name, options):
    case = load_case(FAMILY, name)
    # files from before PyTorch 0.4.1 have no counters
    older = {key: tensor for key, tensor in case.weights.items() if not key.endswith("num_batches_tracked")}
    network = convert_spade_generator(older, **options)
    assert_near(generator_output(network, case), case.outputs["img"])
    config = network.config
    assert (config.base_channels, config.modulation_channels, config.num_upsamplings) == (1, 128, 5)
    assert (config.num_labels, config.latent_dim) == ((4, None) if name == "G_spectral_batch" else (3, 6))
    assert config.normalization == ("batch" if name == "G_spectral_batch" else "instance") and config.spectral_norm


@pytest.mark.parametrize("name", ["D_spectral_instance", "D_spectral_batch"])
def test_golden_discriminators(name):
    case = load_case(FAMILY, name)
    with torch.no_grad():
        output = convert_spade_discriminator(case.weights)(case.inputs["x"])
    for scale, (logits, hidden_states) in enumerate(zip(output.logits, output.hidden_states, strict=True)):
        for layer, features in enumerate((*hidden_states, logits)):
            assert_near(features, case.outputs[f"scale{scale}_layer{layer}"])


def test_golden_encoder():
    case = load_case(FAMILY, "E_spectral_instance")
    with torch.no_grad():
        posterior = convert_spade_encoder(case.weights)(case.inputs["x"]).latent_dist
    assert_near(posterior.mean, case.outputs["mu"])
    assert_near(posterior.logvar, case.outputs["logvar"])


def test_encoders_with_batch_norm_and_without():
    """A batch norm that changes nothing is none: what it adds to variances is multiplied back."""
    weights, bare, batch = load_case(FAMILY, "E_spectral_instance").weights, {}, {}
    for key, tensor in weights.items():
        layer, _, name = key.partition(".0.")
        bare[f"{layer}.{name}" if name else key] = batch[key] = tensor
        if name == "weight_orig":
            width = len(tensor)
            bare[f"{layer}.bias"] = batch[f"{layer}.1.bias"] = batch[f"{layer}.1.running_mean"] = torch.zeros(width)
            batch[f"{layer}.1.weight"] = torch.full((width,), 1 + 1e-5).sqrt()
            batch[f"{layer}.1.running_var"] = torch.ones(width)
    encoders = [convert_spade_encoder(tensors) for tensors in (bare, batch)]
    assert [encoder.config.normalization for encoder in encoders] == ["none", "batch"]
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        assert_near(*(encoder(image).latent_dist.mean for encoder in encoders))


@pytest.mark.parametrize(
    "name, convert, options, needed",
    [
        ("G_spectral_batch", convert_spade_generator, GENERATORS["G_spectral_batch"], "up_1.conv_s.weight_u"),
        ("D_spectral_instance", convert_spade_discriminator, {}, "discriminator_1.model2.0.0.weight_v"),
        ("E_spectral_instance", convert_spade_encoder, {}, "fc_mu.bias"),
    ],
)
def test_a_tensor_more_or_less_or_of_another_shape_is_refused(name, convert, options, needed):
    weights = load_case(FAMILY, name).weights
    last = [key for key in weights if key.endswith("weight_orig")][-1]
    broken = {key: tensor for key, tensor in weights.items() if key != needed}
    broken |= {"stranger.weight": torch.zeros(1), last: torch.cat([weights[last], weights[last]])}
    with pytest.raises(
        ValueError, match=f"1 missing: {needed}; 1 unknown: stranger.weight; 1 of another shape: {last}"
    ):
        convert(broken, **options)


def test_instance_edges_are_a_channel_and_no_label():
    weights = load_case(FAMILY, "G_spectral_batch").weights
    config = convert_spade_generator(weights, crop_size=64, aspect_ratio=2.0, no_instance=False).config
    assert (config.num_labels, config.instance_edges, tuple(config.sample_size)) == (3, True, (32, 64))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_upsampling_layers": "most"}, "given as most, but the checkpoint has no fifth up block"),
        ({"num_upsampling_layers": "many"}, "`num_upsampling_layers` must be"),
        ({"ngf": 64}, "no argument 'ngf'"),
        ({"crop_size": 32}, "fc.weight"),
    ],
)
def test_arguments_at_odds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        convert_spade_generator(load_case(FAMILY, "G_vae_instance").weights, **{"no_instance": True, **options})


# Files


def test_a_generator_and_its_encoder_become_a_pipeline(tmp_path):
    case, encoder = load_case(FAMILY, "G_vae_instance"), dict(load_case(FAMILY, "E_spectral_instance").weights)
    for name in ("fc_mu", "fc_var"):  # the two cases have styles of different lengths
        for kind in ("weight", "bias"):
            encoder[f"{name}.{kind}"] = encoder[f"{name}.{kind}"][:6].clone()
    torch.save(encoder, tmp_path / "latest_net_E.pth")
    file = save(case, tmp_path / "latest_net_G.pth")
    options = {"encoder_file": str(tmp_path / "latest_net_E.pth"), **GENERATORS["G_vae_instance"]}
    written = convert_checkpoint(file, tmp_path / "out", "spade", **options)
    assert "assuming aspect_ratio=1.0, num_upsampling_layers=normal" in written
    pipe = SemanticSynthesisPipeline.from_pretrained(tmp_path / "out")
    assert_near(generator_output(pipe.generator, case), case.outputs["img"])
    labels = case.inputs["seg"].argmax(dim=1)
    image = pipe(list(labels), latents=case.inputs["z"], output_type="pt").images
    assert_near(image, (case.outputs["img"] / 2 + 0.5).clamp(0, 1))
    assert pipe(list(labels), style_image=torch.rand(3, 40, 30)).images[0].size == (64, 64)


def test_a_discriminator_and_an_encoder_become_folders(tmp_path):
    for name, model in (("D_spectral_instance", MultiScalePatchDiscriminator), ("E_spectral_instance", SPADEEncoder)):
        file = save(load_case(FAMILY, name), tmp_path / f"{name}.pth")
        convert_checkpoint(file, tmp_path / name, "spade")
        model.from_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match="`crop_size` is for generators"):
            convert_checkpoint(file, tmp_path / "more", "spade", crop_size=64)
    torch.save({"main.0.weight": torch.zeros(4, 3, 4, 4)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a network of SPADE"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "more", "spade")
