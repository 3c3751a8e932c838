"""A Hugging Face Space with the page of a pipeline: the app, what it needs, and its card."""

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

import diffusers_ext
from diffusers_ext.atomic import written_beside
from diffusers_ext.demo.loading import check_pipeline, name_of
from diffusers_ext.hub.publishing import published_files


APP = '''"""The page of a pipeline, made by `{command}`."""

from diffusers_ext.demo import serve_demo
from diffusers_ext.demo.loading import load_pipeline


serve_demo(load_pipeline({address!r}), title={title!r}, host="0.0.0.0")
'''
COMMAND = "python -m diffusers_ext.demo"
PIPELINE = "pipeline"  # the folder of the Space with the pipeline


def write_space(name_or_path: str | os.PathLike, folder: str | os.PathLike, title: str | None = None) -> Path:
    """
    Writes what a Space needs: `app.py`, `requirements.txt`, and `README.md` with the settings in its front matter.

    The Space of a folder contains the pipeline, as [`publish_folder`] publishes it. The Space of a repository of the
    Hub loads it from there.

    Args:
        name_or_path (`str` or `os.PathLike`): the pipeline, a folder or a repository of the Hub.
        folder (`str` or `os.PathLike`): the folder to write, which must not exist or must be empty.
        title (`str`, *optional*): the heading of the page.

    Returns:
        `Path`: `folder`.

    Raises:
        ValueError, OSError: if there is no pipeline, or `folder` has content.
        ImportError: without Gradio, whose version the Space gets.
    """
    files = space_files(os.fspath(name_or_path), title)
    with written_beside(folder) as unfinished:
        for name, content in files.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, unfinished / name)
            else:
                (unfinished / name).write_bytes(content)
    return Path(folder)


def publish_space(
    name_or_path: str | os.PathLike,
    repo_id: str,
    title: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """
    Publishes the Space that [`write_space`] writes, in one commit.

    Args:
        name_or_path, title: as for [`write_space`].
        repo_id (`str`): the Space, `user/name`, or a name in your own namespace. It is created if necessary.
        private (`bool`, *optional*): whether a new Space is private.
        token (`str`, *optional*): a token with write access; by default the token of your login.

    Returns:
        `str`: the address of the Space.
    """
    files = space_files(os.fspath(name_or_path), title)
    api = HfApi(token=token)
    created = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    there = api.list_repo_files(created.repo_id, repo_type="space")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [
        CommitOperationDelete(name) for name in there if name.startswith(f"{PIPELINE}/") and name not in files
    ]
    api.create_commit(created.repo_id, operations, commit_message="Upload the demo", repo_type="space")
    return str(created)


def space_files(name_or_path: str, title: str | None = None) -> dict[str, bytes | Path]:
    """The files of a Space by their names: their content, or the file to copy."""
    check_pipeline(name_or_path)
    is_local = os.path.isdir(name_or_path)
    title = title or name_of(name_or_path).rpartition("/")[2]
    files = {
        "app.py": APP.format(command=COMMAND, address=PIPELINE if is_local else name_or_path, title=title).encode(),
        "requirements.txt": f"diffusers_ext[demo]=={diffusers_ext.__version__}\n".encode(),
        "README.md": space_card(title, None if is_local else name_or_path).encode(),
    }
    if is_local:
        published = published_files(name_or_path, PIPELINE)
        files |= {f"{PIPELINE}/{name}": content for name, content in published.items()}
    return files


def space_card(title: str, model: str | None) -> str:
    """The card of a Space. Its front matter is what the Hub reads; `model` is a repository of the Hub."""
    try:
        gradio_version = version("gradio")
    except PackageNotFoundError as error:
        raise ImportError('A Space gets the version of Gradio: pip install "diffusers_ext[demo]".') from error
    settings = {
        "title": title,
        "emoji": "🖼️",
        "colorFrom": "blue",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": gradio_version,
        "app_file": "app.py",
        "pinned": False,
    }
    if model is not None:
        settings["models"] = [model]
    front_matter = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    source = f"[{model}](https://huggingface.co/{model})" if model else f"the pipeline in [{PIPELINE}]({PIPELINE})"
    text = f"A page in the browser for {source}, made with diffusers_ext."
    return f"---\n{front_matter}---\n\n# {title}\n\n{text}\n\nOn your machine: `{COMMAND} {model or PIPELINE}`\n"
