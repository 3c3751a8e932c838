"""Users of a Hub, each a Python process that runs one piece of code after the other.

A process of its own is needed because huggingface_hub reads `HF_ENDPOINT`, the token and its folders on import.
"""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path


class UserError(Exception):
    """An exception in the user's process, as `ValueError: its message`."""


class HubUser:
    """A process that talks to the Hub at `endpoint`, with an empty cache in `home`, while used as a context manager.

    Args:
        endpoint (`str`): the address of the Hub.
        home (`Path`): a folder for the caches.
        token (`str`): what the user logged in with.
        has_package (`bool`): whether `diffusers_ext` can be imported.
    """

    def __init__(self, endpoint: str, home: Path, token: str, has_package: bool):
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        self.cache = home / "hub"
        self._process = subprocess.Popen(
            [sys.executable, __file__, *([] if has_package else ["diffusers_ext"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )

    def run(self, code: str, **values):
        """Runs `code` with the variables `values`, and returns what it leaves in the variable `result`.

        Raises:
            UserError: if the code raises.
        """
        self._process.stdin.write(json.dumps({"code": textwrap.dedent(code), "values": values}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise UserError(answer["error"])
        return answer["result"]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def serve(answers):
    for line in sys.stdin:
        request = json.loads(line)
        namespace = {"result": None, **request["values"]}
        try:
            exec(compile(request["code"], "<test>", "exec"), namespace)
            answer = {"result": namespace["result"]}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    for missing in sys.argv[1:]:
        sys.modules[missing] = None  # `import` raises, as if it was not installed
    sys.path[0] = os.getcwd()
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        serve(answers)
