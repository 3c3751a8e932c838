"""Publishing a run on the Hub: tried out before the training, and easy to repeat if it fails after it."""

import shlex
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from diffusers_ext.hub import publish_folder


# Refused by the Hub; no token, no network; and what publish_folder refuses.
_ERRORS = (HTTPError, OSError, ValueError)


class PublicationError(RuntimeError):
    """The model of a finished run could not be published."""


class Publication:
    """The repository of a run.

    Args:
        folder (`Path`): the output folder of the run.
        repo_id (`str`): the repository, `user/name`, or a name in the user's own namespace.
        token (`str`, *optional*): a token with write access; by default the token of the login.
        private (`bool`, *optional*): whether a new repository is private.
    """

    def __init__(self, folder: Path, repo_id: str, token: str | None, private: bool | None):
        self.folder, self.repo_id, self.token, self.private = folder, repo_id, token, private

    def prepare(self) -> None:
        """Create the repository, if there is none, and check that it can be written to.

        Raises:
            ValueError: if it can't.
        """
        api = HfApi(token=self.token)
        try:
            repo_id = api.create_repo(self.repo_id, private=self.private, exist_ok=True).repo_id
            api.auth_check(repo_id, write=True)
        except _ERRORS as error:
            raise ValueError(
                f"--push_to_hub: {self.repo_id} can't be created or written to ({_reason(error)}): log in with `hf "
                "auth login`, give a --hub_token with write access, or leave --push_to_hub out and publish later."
            ) from error

    def publish(self) -> None:
        """Publish the output folder.

        Raises:
            PublicationError: if it fails; with the command that does it later.
        """
        try:
            publish_folder(self.folder, self.repo_id, token=self.token, private=self.private)
        except _ERRORS as error:
            raise PublicationError(
                f"The model in {self.folder} is complete, but is not published ({_reason(error)}); to publish it "
                f"later: {self.command()}"
            ) from error

    def command(self) -> str:
        """The command that publishes the folder later, with the token of the login."""
        options = "" if self.private is None else f", private={self.private}"
        code = f"publish_folder({str(self.folder)!r}, {self.repo_id!r}{options})"
        return shlex.join(["python", "-c", f"from diffusers_ext.hub import publish_folder; {code}"])


def _reason(error: Exception) -> str:
    # The first line says it; the Hub's request numbers and addresses follow.
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
