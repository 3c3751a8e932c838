from dataclasses import dataclass

import pytest
import yaml

from diffusers_ext.training.evaluate_pipeline import EvaluateConfig
from diffusers_ext.training.loop.configuration import JSONObject, TrainingConfig, option, parse_config
from diffusers_ext.training.text_to_image.fine_tuning import FineTuningConfig
from diffusers_ext.training.train_controlnet import ControlNetConfig
from diffusers_ext.training.train_gan import GANConfig


@dataclass
class Options(TrainingConfig):
    unet: JSONObject = option(JSONObject(), help="A mapping.")
    scales: list[float] = option([1.0], help="Some numbers.")


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "options.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_command_line_wins_over_the_file_and_the_file_over_the_defaults(written):
    path = written(
        "learning_rate: 2e-3\ntrain_batch_size: 8\nresolution: 32\nuse_ema: false\nunet: {layers: [1, 2]}\n"
    )
    config = parse_config(Options, ["--train_batch_size", "4", "--config", path, "--random_flip"])
    assert (config.learning_rate, config.train_batch_size, config.resolution) == (2e-3, 4, [32])
    assert (config.use_ema, config.random_flip, config.unet) == (False, True, {"layers": [1, 2]})
    assert config.size == (32, 32) and config.adam_beta1 == 0.9


def test_lists_mappings_and_both_spellings_of_a_flag(written):
    config = parse_config(
        Options, ["--resolution", "24", "32", "--scales", "1", "2.5", "--unet", '{"a": 1}', "--no_use_ema"]
    )
    assert config.size == (24, 32) and config.scales == [1.0, 2.5] and config.unet == {"a": 1} and not config.use_ema


def test_what_is_written_down_reads_back(written):
    config = parse_config(Options, ["--unet", '{"a": [1]}', "--learning_rate", "1e-5", "--hub_token", "secret"])
    text = config.to_yaml()
    assert "secret" not in text and "hub_token" not in yaml.safe_load(text)
    again = parse_config(Options, ["--config", written(text)])
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learning_rat: 1", "sets learning_rat (did you mean learning_rate?), which this script does not know"),
        ("learning_rate: fast", "invalid float value: 'fast'"),
        ("learning_rate: -1", "--learning_rate must be positive, not -1.0"),
        ("train_batch_size: 1.5", "invalid int value: '1.5'"),
        ("resolution: [1, 2, 3]", "one number, or height and width"),
        ("push_to_hub: true\nhub_model_id: a/b/c", "--hub_model_id must be user/name, not 'a/b/c'"),
        ("push_to_hub: true\noutput_dir: outputs/my model", "--hub_model_id must be user/name, not 'my model'"),
        ("mixed_precision: fp8", "invalid choice: 'fp8'"),
        ("- a\n- b", "must hold options as `name: value` lines"),
        ("a: [", "expected the node content"),
        ("unet: 3", "unet"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(written, capsys, text, sentence):
    with pytest.raises(SystemExit) as stop:
        parse_config(Options, ["--config", written(text)])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--lerning_rate", "3"], "no option is called --lerning_rate (did you mean --learning_rate?)"),
        (["--train-batch-sise=3"], "no option is called --train-batch-sise (did you mean --train-batch-size?)"),
        (["--zzz"], "no option is called --zzz\n"),
        (["images"], "no option takes 'images'"),
    ],
)
def test_an_unknown_option_is_named_with_the_one_that_was_meant(capsys, arguments, sentence):
    with pytest.raises(SystemExit, match="2"):
        parse_config(Options, arguments)
    assert sentence in capsys.readouterr().err


def test_a_missing_file_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit):
        parse_config(Options, ["--config", str(tmp_path / "none.yaml")])
    assert "none.yaml" in capsys.readouterr().err


def test_every_option_has_a_help_text(capsys):
    with pytest.raises(SystemExit):
        parse_config(Options, ["--help"])
    text = capsys.readouterr().out
    assert "--resume_from_checkpoint" in text and "A mapping." in text


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--learning_rate=inf", "--learning_rate must be a finite number, not inf"),
        ("--max_grad_norm=nan", "--max_grad_norm must be a finite number, not nan"),
        ("--posthoc_ema_stds=nan", "--posthoc_ema_stds must be a finite number, not nan"),
        ("--dataset_name=", "--dataset_name must not be empty"),
        ("--lr_scheduler=--", "--lr_scheduler needs a value"),
        ("--lr_power=2", "--lr_power is for --lr_scheduler polynomial, not constant_with_warmup"),
        ("--posthoc_ema_steps=7", "--posthoc_ema_steps is for --posthoc_ema_stds, which is not set"),
        ("--shuffle_buffer_size=7", "--shuffle_buffer_size is for --streaming, which is not set"),
    ],
)
def test_values_that_mean_nothing_are_refused(capsys, argument, sentence):
    with pytest.raises(SystemExit):
        parse_config(TrainingConfig, [argument])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config_class", "option"),
    [
        (FineTuningConfig, "--pretrained_model_name_or_path"),
        (GANConfig, "--pretrained_model_name_or_path"),
        (EvaluateConfig, "--pretrained_model_name_or_path"),
        (ControlNetConfig, "--controlnet_model_name_or_path"),
    ],
)
def test_a_single_file_as_a_model_is_refused_with_the_option_as_it_was_typed(tmp_path, capsys, config_class, option):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(SystemExit):
        parse_config(config_class, [option, str(file)])
    assert f"error: {option} {file} is a single file, but a folder or a repository" in capsys.readouterr().err
