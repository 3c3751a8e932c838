import json
import logging

from diffusers_ext.hub.own_files import RECORD, own_file, write_own


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)


def test_what_the_program_wrote_is_replaced(tmp_path):
    for content in (b"one", b"two", b"three"):
        assert write_own(tmp_path, "README.md", content) == own_file(tmp_path, "README.md") == tmp_path / "README.md"
    assert names(tmp_path) == ["README.md"] and (tmp_path / "README.md").read_bytes() == b"three"


def test_a_file_of_the_user_stays(tmp_path, caplog):
    (tmp_path / "samples.png").write_bytes(b"mine")
    (tmp_path / "samples-2.png").write_bytes(b"mine too")
    for content in (b"one", b"two"):
        with caplog.at_level(logging.WARNING):
            assert write_own(tmp_path, "samples.png", content) == tmp_path / "samples-3.png"
        assert f"{tmp_path / 'samples.png'} is not as this program wrote it, so it stays" in caplog.text
    assert own_file(tmp_path, "samples.png").read_bytes() == b"two"
    assert (tmp_path / "samples.png").read_bytes() == b"mine"
    assert (tmp_path / "samples-2.png").read_bytes() == b"mine too"


def test_a_file_that_the_user_changed_stays(tmp_path):
    write_own(tmp_path, "README.md", b"card")
    (tmp_path / "README.md").write_text("card, and my words")
    assert own_file(tmp_path, "README.md") == tmp_path / "README.md"
    assert write_own(tmp_path, "README.md", b"next card").name == "README-2.md"
    assert (tmp_path / "README.md").read_text() == "card, and my words"


def test_a_folder_of_that_name_stays(tmp_path):
    (tmp_path / "metrics.json").mkdir()
    assert write_own(tmp_path, "metrics.json", b"{}").name == "metrics-2.json"


def test_a_process_that_was_killed_after_the_record_knows_its_file(tmp_path):
    write_own(tmp_path, "README.md", b"first")
    before = (tmp_path / "README.md").read_bytes()
    write_own(tmp_path, "README.md", b"second")
    (tmp_path / "README.md").write_bytes(before)
    assert write_own(tmp_path, "README.md", b"third").name == "README.md"
    assert len(json.loads((tmp_path / RECORD).read_text())["README.md"]["sha256"]) == 2
