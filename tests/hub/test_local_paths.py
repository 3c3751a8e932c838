import yaml

from diffusers_ext.hub import publishing
from diffusers_ext.hub.card import model_card
from diffusers_ext.hub.local_paths import local_paths, shown_arguments, text_without, without_local_paths
from diffusers_ext.hub.own_files import write_own


OPTIONS = {
    "train_data_dir": "/home/alice/clients/acme/photos",
    "output_dir": "runs/secret/digits",
    "feature_extractor": "~/networks/lenet",
    "lora_weights": "../elsewhere/lora.safetensors",
    "subjects": [{"instance_data_dir": "/home/alice/dog", "instance_prompt": "a photo of sks dog"}],
    "pretrained_model_name_or_path": "stabilityai/sdxl",
    "dataset_name": "https://example.org/data",
    "validation_prompts": ["black/white photo", "two\nlines /home"],
    "learning_rate": 0.1,
}
PUBLIC = {
    **OPTIONS,
    "train_data_dir": "photos",
    "output_dir": "digits",
    "feature_extractor": "lenet",
    "lora_weights": "lora.safetensors",
    "subjects": [{"instance_data_dir": "dog", "instance_prompt": "a photo of sks dog"}],
}
PRIVATE = ("alice", "secret", "elsewhere", "networks")


def test_of_paths_only_the_last_part_is_public(tmp_path, monkeypatch):
    assert without_local_paths(OPTIONS) == PUBLIC
    assert len(list(local_paths(OPTIONS))) == 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    assert without_local_paths("bases/mine") == "mine" and without_local_paths("bases/other") == "bases/other"


def test_commands_show_no_paths_and_no_token():
    arguments = ["--train_data_dir", "/home/alice/photos", "--output_dir=runs/secret/digits", "--hub_token", "hf_x"]
    arguments += ["--hub-token=hf_x", "--config", "/home/alice/my.yaml", "--seed", "1", "--unet={'a': 1}"]
    arguments += ["--subjects", '[{"instance_data_dir": "/home/alice/dog"}]', "--call_options", '{"a":1}']
    assert shown_arguments(arguments) == [
        *(
            "--train_data_dir",
            "photos",
            "--output_dir=digits",
            "--config",
            "my.yaml",
            "--seed",
            "1",
            "--unet={'a': 1}",
        ),
        *("--subjects", '[{"instance_data_dir": "dog"}]', "--call_options", '{"a":1}'),
    ]


def test_only_whole_paths_are_replaced_in_a_text():
    text = 'from_pretrained("/data/a/b"), /data/a/b/c, /data/a/bc, other/data/a/b'
    assert text_without(["/data/a/b", "/"], text) == 'from_pretrained("b"), b/c, /data/a/bc, other/data/a/b'


def test_card_and_published_options_have_no_local_paths(tmp_path):
    loading = 'pipe = DiffusionPipeline.from_pretrained("/home/alice/clients/acme/photos")'
    card = model_card(title="x", pipeline_class="x", address="a/x", config=OPTIONS)
    assert not any(word in card for word in PRIVATE)
    (tmp_path / "README.md").write_text(f"{card}\n{loading}")
    (tmp_path / "training_config.yaml").write_text(yaml.safe_dump(OPTIONS))
    (tmp_path / "metrics.json").write_text('{"extractor": "~/networks/lenet"}')
    for name in ("README.md", "training_config.yaml", "metrics.json"):
        text = publishing._published(tmp_path, name, "alice-user/x").decode()
        assert not any(word in text.replace("alice-user", "") for word in PRIVATE), name
    assert yaml.safe_load(publishing._published(tmp_path, "training_config.yaml", "a/x")) == PUBLIC
    assert yaml.safe_load((tmp_path / "training_config.yaml").read_text()) == OPTIONS


def test_what_the_run_wrote_is_published_in_place_of_the_users_file(tmp_path):
    (tmp_path / "samples.png").write_bytes(b"mine")
    written = write_own(tmp_path, "samples.png", b"of the run")
    assert publishing._published(tmp_path, "samples.png", "a/x") == written
