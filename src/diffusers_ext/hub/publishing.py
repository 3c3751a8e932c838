"""Saving, publishing and loading of pipelines that readers with and without this package can use."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml
from diffusers import DiffusionPipeline
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_cached_repo_tree,
    snapshot_download,
)

from diffusers_ext.atomic import UNFINISHED, move_into, remove
from diffusers_ext.hub.card import addressed_to, model_card
from diffusers_ext.hub.local_paths import local_paths, text_without, without_local_paths
from diffusers_ext.hub.own_files import own_file
from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.hub.repository import (
    CARD,
    COMPANIONS,
    INDEX,
    bundle,
    bundled_pipeline_class,
    components,
    files_to_load,
    files_to_publish,
    installed_form,
    superseded_weights,
)


OPTIONS = "training_config.yaml"
METRICS = "metrics.json"


class PublishableMixin:
    """
    Lets a pipeline load without remote code, and others load what it saves without this package.

    The file in `pipelines/` stays plain, because it is the file that is published. The class that users import is

        class XPipeline(PublishableMixin, pipeline_x.XPipeline): ...

    which has the docstring of the plain class, unless it has its own. Its repositories contain the plain file and the
    files of the component classes of this package (`hub/repository.py`).
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.__doc__ is None:
            cls.__doc__ = _plain_class(cls).__doc__

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        *,
        repo_id: str | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> None:
        """
        Save the pipeline to a folder, from which it loads with or without `diffusers_ext`.

        Every file is written under another name and renamed, `model_index.json` last. The card, samples, metrics and
        training configuration of the folder that the pipeline was loaded from, or saved to before, are copied if
        `save_directory` has none.

        Args:
            save_directory (`str` or `os.PathLike`): the folder, which is created if necessary. Other files in it stay.
            safe_serialization (`bool`): must be true; weights are saved as safetensors only.
            variant (`str`, *optional*): saves `diffusion_pytorch_model.<variant>.safetensors`; other variants stay.
            max_shard_size (`int` or `str`, *optional*): size in bytes, or like `"5GB"`, above which weights are split.
            push_to_hub (`bool`): whether to publish the folder, as [`publish_folder`] does.
            repo_id (`str`, *optional*): the repository, by default the name of the folder in your namespace.
            commit_message, private, token, create_pr: see [`publish_folder`].

        Raises:
            ValueError: if `safe_serialization` is false, if the configuration contains a list (which diffusers would
                take for a component), or if a component cannot be saved or its file would not stand alone.
            NotADirectoryError: if `save_directory` is a file.
        """
        self._write(Path(save_directory), safe_serialization, variant, max_shard_size)
        self.register_to_config(_name_or_path=str(save_directory))
        if push_to_hub:
            publish_folder(
                save_directory,
                repo_id or Path(save_directory).resolve().name,
                token=token,
                private=private,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                create_pr=create_pr,
            )

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
    ) -> CommitInfo:
        """
        Publish the pipeline on the Hub: what `save_pretrained` writes, with the card of the folder it was loaded from.

        Args:
            repo_id (`str`): the repository, `user/name`, which is created if necessary.
            safe_serialization (`bool`): must be true; weights are saved as safetensors only.
            variant (`str`, *optional*): publishes the weights as this variant; other variants stay.
            commit_message, private, token, create_pr: see [`publish_folder`].

        Returns:
            `CommitInfo`: the commit; as a string, its address.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), safe_serialization, variant, max_shard_size=None)
            return publish_folder(
                folder,
                repo_id,
                token=token,
                private=private,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                create_pr=create_pr,
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "PublishableMixin":
        """
        Load a pipeline from a folder or the Hub without running remote code. Arguments are as in diffusers.

        Raises:
            ValueError: if the pipeline is a single file, or of another kind.
        """
        refuse_single_file(pretrained_model_name_or_path)
        if os.path.isdir(pretrained_model_name_or_path):
            cls._refuse_another_job(pretrained_model_name_or_path, kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _refuse_another_job(cls, folder: str | os.PathLike, given: Iterable[str]) -> None:
        index = cls.load_config(folder)
        needed = set(cls._get_signature_keys(cls)[0]) - set(cls._optional_components)
        lacking = sorted(needed - {*index, *given})
        if lacking:
            raise ValueError(
                f"{cls.__name__} can't be loaded from {folder}: this has the class {index.get('_class_name')}, and "
                f"has no {' and no '.join(lacking)}."
            )

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs) -> str:
        """
        Download a pipeline into the cache: configurations and safetensors, but no code.

        The method of diffusers would download every file of components without weights.

        Args:
            pretrained_model_name (`str`): the repository, `user/name`.
            kwargs: `revision`, `variant`, `token`, `cache_dir`, `force_download` and `local_files_only` as in
                `from_pretrained`; components that are passed there are not downloaded.

        Returns:
            `str`: the folder of the pipeline.
        """
        names = ("token", "cache_dir", "force_download", "local_files_only")
        options = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        revision = kwargs.get("revision")
        folder = snapshot_download(pretrained_model_name, revision=revision, allow_patterns=INDEX, **options)
        if not os.path.isfile(os.path.join(folder, INDEX)):
            raise OSError(f"{pretrained_model_name} can't be loaded as a pipeline, because it has no {INDEX}.")
        cls._refuse_another_job(folder, kwargs)
        # The first download listed the files of this commit.
        commit = os.path.basename(folder)
        tree = get_cached_repo_tree(pretrained_model_name, revision=commit, cache_dir=options.get("cache_dir"))
        wanted = [name for name in components(cls.load_config(folder)) if name not in kwargs]
        filenames = [INDEX, *files_to_load([file.path for file in tree], wanted, kwargs.get("variant"))]
        return snapshot_download(pretrained_model_name, revision=commit, allow_patterns=filenames, **options)

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict:
        # Diffusers reads every model_index.json through this method: below it, there is no remote code to see.
        return installed_form(super()._dict_from_json_file(json_file))

    def _write(self, folder: Path, safe_serialization: bool, variant: str | None, max_shard_size) -> None:
        if not safe_serialization:
            raise ValueError("`safe_serialization=False` is not supported: weights are saved as safetensors only.")
        self._refuse_lists()
        self._register_added_components()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(
                f"The pipeline can't be saved to {folder}, because this is a file and not a folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the folder, because its parent may be on another file system.
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            super().save_pretrained(unfinished, variant=variant, max_shard_size=max_shard_size)
            self._refuse_unsaved(unfinished)
            bundle(unfinished, _plain_class(type(self)))
            self._copy_companions(unfinished, folder)
            written = _filenames(unfinished)
            move_into(unfinished, folder, last=INDEX)
        finally:
            remove(unfinished)
        for filename in superseded_weights(_filenames(folder), written):
            (folder / filename).unlink()

    def _refuse_lists(self) -> None:
        for name, value in self.config.items():
            if name not in self.components and name[0] != "_" and isinstance(value, list | tuple):
                raise ValueError(
                    f"The pipeline can't be saved with the list {value} as `{name}`, because diffusers takes lists in "
                    f"{INDEX} for components; use a dictionary."
                )

    def _register_added_components(self) -> None:
        # Diffusers does not record `pipe.guider = ...` for a pipeline without guider, and would not save it.
        added = {name: part for name, part in self.components.items() if part is not None}
        self.register_modules(**{name: part for name, part in added.items() if self.config[name][0] is None})

    def _refuse_unsaved(self, folder: Path) -> None:
        for name, component in self.components.items():
            if component is not None and not (folder / name).is_dir():
                raise ValueError(
                    f"The pipeline can't be saved, because its `{name}` ({type(component).__name__}) is "
                    "not a ModelMixin, SchedulerMixin or other class that diffusers saves."
                )

    def _copy_companions(self, unfinished: Path, folder: Path) -> None:
        if self.name_or_path is None or not Path(self.name_or_path).is_dir():
            return
        for name in COMPANIONS:
            source = own_file(self.name_or_path, name)
            if source.is_file() and not (folder / name).exists():
                shutil.copyfile(source, unfinished / name)


def publish_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str = "Upload pipeline",
    create_pr: bool = False,
) -> CommitInfo:
    """
    Publish the pipeline in a folder on the Hub in one commit, or a part of a pipeline: LoRA weights, learned words, or
    a single model.

    The commit contains the pipeline, the components that it names, and the files of `COMPANIONS`, but no checkpoints,
    optimizer states, logs, or other files of a training run. The card's loading code gets the address `repo_id`, and
    a repository without card gets one that explains how to load the pipeline. Local paths in the card, the options and
    the metrics are published without their folders. Obsolete weights in the repository are deleted in the same commit;
    other variants stay.

    Args:
        folder (`str` or `os.PathLike`): the folder that `save_pretrained` or a trainer wrote.
        repo_id (`str`): the repository, `user/name`, or a name in your own namespace. It is created if necessary.
        token (`str`, *optional*): a token with write access; by default the token of your login.
        private (`bool`, *optional*): whether a new repository is private.
        commit_message (`str`): the message of the commit.
        create_pr (`bool`): whether to open a pull request instead of writing to the main branch.

    Returns:
        `CommitInfo`: the commit; as a string, its address.

    Raises:
        ValueError: if there is neither a pipeline nor a part in the folder, or if readers could not load it.
    """
    folder = Path(folder)
    filenames = files_to_publish(folder)
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    there = api.list_repo_files(repo_id)
    additions = [CommitOperationAdd(name, content) for name, content in published_files(folder, repo_id).items()]
    if CARD not in [*filenames, *there] and INDEX in filenames and (pipeline_class := bundled_pipeline_class(folder)):
        card = model_card(title=repo_id.split("/")[-1], pipeline_class=pipeline_class, address=repo_id)
        additions.append(CommitOperationAdd(CARD, card.encode()))
    deletions = [CommitOperationDelete(name) for name in superseded_weights(there, filenames)]
    return api.create_commit(repo_id, additions + deletions, commit_message=commit_message, create_pr=create_pr)


def published_files(folder: str | os.PathLike, address: str) -> dict[str, Path | bytes]:
    """
    The files of a pipeline's folder as they are published: by name, the file or, where it differs, the content.

    Args:
        folder (`str` or `os.PathLike`): the folder that `save_pretrained` or a trainer wrote.
        address (`str`): what the loading code of the card loads from.
    """
    folder = Path(folder)
    return {name: _published(folder, name, address) for name in files_to_publish(folder)}


def _published(folder: Path, name: str, repo_id: str) -> Path | bytes:
    """The file that is published as `name`, or the published content if it differs from the file's."""
    file = own_file(folder, name)
    if name == CARD:
        card = addressed_to(file.read_text(encoding="utf-8"), repo_id)
        return text_without(local_paths(_options(folder)), card).encode()
    if name == OPTIONS and _options(folder):
        return yaml.safe_dump(without_local_paths(_options(folder)), sort_keys=False).encode()
    if name == METRICS:
        return text_without(local_paths(_options(folder)), file.read_text(encoding="utf-8")).encode()
    return file


def _options(folder: Path) -> dict:
    """The options of the run that wrote a folder; empty if there are none."""
    file = own_file(folder, OPTIONS)
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    return options if isinstance(options, dict) else {}


def _plain_class(cls: type) -> type:
    return next(
        base for base in cls.__mro__ if issubclass(base, DiffusionPipeline) and not issubclass(base, PublishableMixin)
    )


def _filenames(folder: Path) -> Iterable[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
