import pytest

import diffusers_ext
from tests.hub import toy
from tests.hub.hub_server import HubServer
from tests.hub.hub_user import HubUser


@pytest.fixture(scope="module")
def toys():
    """The package, with the toy classes in it."""
    toy.move_in()
    yield diffusers_ext
    toy.move_out()


@pytest.fixture(scope="session")
def hub():
    """An empty Hub with the users alice and bob."""
    with HubServer(tokens={"hf_alice": "alice", "hf_bob": "bob"}) as server:
        yield server


@pytest.fixture(scope="session")
def alice(hub, tmp_path_factory):
    """Has `diffusers_ext`, with the toy classes in it, and may write to `alice/...`."""
    with HubUser(hub.endpoint, tmp_path_factory.mktemp("alice"), "hf_alice", has_package=True) as user:
        user.run("from tests.hub import toy; toy.move_in()")
        yield user


@pytest.fixture(scope="session")
def bob(hub, tmp_path_factory):
    """Has diffusers only, and may write to `bob/...`."""
    with HubUser(hub.endpoint, tmp_path_factory.mktemp("bob"), "hf_bob", has_package=False) as user:
        yield user
