"""Every block of code in the documentation is run, or marked with the reason why not; and tests of this test."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from .blocks import ROOT, check_syntax, read_blocks, run_page


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks_with(page: Path, *marks: str | None) -> list:
    return [block for block in read_blocks(page) if block.mark in marks]


@pytest.mark.parametrize("name", NAMES)
def test_marks_and_syntax(name):
    for block in read_blocks(ROOT / name):
        check_syntax(block)


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
def test_python_blocks_name_what_they_use(tmp_path):
    """Also the blocks that are not run here: a page's blocks have all the imports that they need."""
    for name in NAMES:
        blocks = [block for block in read_blocks(ROOT / name) if block.language == "python" and block.mark != "no"]
        code = "\n".join(block.code for block in blocks)
        (tmp_path / f"{name.replace('/', '-')}.py").write_text(code, encoding="utf-8")
    options = ["--isolated", "--select", "F821", "--output-format", "concise", str(tmp_path)]
    checked = subprocess.run(["ruff", "check", *options], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", NAMES)
def test_fast_blocks(name, tmp_path, monkeypatch):
    blocks = blocks_with(ROOT / name, None)
    if blocks:
        run_page(blocks, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_blocks(name, tmp_path, monkeypatch):
    here = (None, "slow", "gpu") if torch.cuda.is_available() else (None, "slow")
    blocks = blocks_with(ROOT / name, *here)
    if any(block.mark for block in blocks):
        run_page(blocks, tmp_path, monkeypatch)


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- run: later -->\n```bash\nls\n```", "page.md:1: a mark is"),
        ("<!-- run: no -->\n```bash\nls\n```", "needs a reason"),
        ("<!-- run: slow, it is long -->\n```bash\nls\n```", "take none"),
        ("<!-- run: slow -->\n\n```bash\nls\n```", "page.md:2: the line above"),
        ("<!-- run: slow -->\n```text\nls\n```", "never run"),
        ("```sh\nls\n```", "write bash"),
        ("```bash\nls", "does not end"),
    ],
)
def test_wrong_pages_are_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_blocks(write(tmp_path, text))


@pytest.mark.parametrize(
    "text, error",
    [
        ("```python\nx = 1\nassert x == 2\n```", AssertionError),
        ("```bash\nfalse | cat\n```", subprocess.CalledProcessError),
        ("```bash\nls $undefined\n```", subprocess.CalledProcessError),
        ("```bash\nfalse\ntrue\n```", subprocess.CalledProcessError),
        ("```yaml\na: [\n```", Exception),
        ("```python\nfrom huggingface_hub import HfApi\nHfApi().whoami(token='x')\n```", Exception),
    ],
)
def test_blocks_that_fail(text, error, tmp_path, monkeypatch):
    page = write(tmp_path, text)
    with pytest.raises(error):
        run_page(read_blocks(page), tmp_path, monkeypatch)


def test_blocks_of_a_page_share_a_folder_and_names(tmp_path, monkeypatch):
    text = """
- indented

  ```python
  import diffusers_ext
  answer = 42
  ```

```yaml
# file: some.yaml
steps: 3
```

<!-- run: no, it would fail -->
```bash
false
```

```python
from pathlib import Path
import yaml
Path("result.txt").write_text(str(answer + yaml.safe_load(Path("some.yaml").read_text())["steps"]))
```

```bash
test "$(cat result.txt)" = 45
test -f training/train_diffusion.py
test -f examples/digits.yaml
python -c "import diffusers_ext"
echo wrong > examples/digits.yaml
```
"""
    before = (ROOT / "examples" / "digits.yaml").read_bytes()
    run_page(blocks_with(write(tmp_path, text), None, "slow"), tmp_path, monkeypatch)
    assert (ROOT / "examples" / "digits.yaml").read_bytes() == before
