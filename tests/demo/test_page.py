"""The page as Gradio serves it: what it makes, what it refuses, and that nothing else of the machine is to be had."""

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from diffusers_ext.demo import build_demo, serve_demo
from diffusers_ext.demo.panel import Limits
from diffusers_ext.demo.panels import panel_for
from tests.demo import kinds
from tests.demo.test_controls import bomb


gradio = pytest.importorskip("gradio", reason='the page needs Gradio: pip install "diffusers_ext[demo]"')
gradio_client = pytest.importorskip("gradio_client")

LIMITS = Limits(images=8, file_size=200_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the server runs."""
    return tmp_path_factory.mktemp("working folder")


@pytest.fixture(scope="module")
def page(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRADIO_TEMP_DIR", "")  # is set by the server, and restored
        page = serve_demo(kinds.make("palette"), title="Toy", blocks=False, limits=LIMITS)
        yield page
        page.close()


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    return gradio_client.Client(page.local_url, verbose=False, download_files=str(downloads))


def get(page, address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(page.local_url + quote(address, safe="/=:")) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(page, address: str, content: bytes, kind: str = "application/json") -> tuple[int, bytes]:
    request = urllib.request.Request(page.local_url + address, content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def values(title: str, **changes) -> list:
    """What a visitor sends for an action of the page."""
    action = next(action for action in panel_for(kinds.make("palette"), LIMITS).actions() if action.title == title)
    changes |= {"num_inference_steps": 2}
    sent = {
        name: changes[name] if name in changes else kinds.sent_at_first(control, Path())
        for name, control in action.controls.items()
    }
    return list(sent.values())


def upload(picture, folder, name="picture.png"):
    return gradio_client.handle_file(kinds.write(picture, folder, name).path)


# Pages with all controls and outputs that there are; tests/demo/test_panels.py runs the actions of every kind.
PAGES = (
    "palette",
    "gan of classes",
    "variational autoencoder",
    "label maps",
    "film of texts, larger",
    "text and mask",
)


@pytest.mark.parametrize("kind", PAGES)
def test_kinds_have_pages(kind):
    page = build_demo(kinds.make(kind))
    buttons = [block for block in page.blocks.values() if isinstance(block, gradio.Button) and block.value == "Make"]
    assert len(buttons) == len(panel_for(kinds.make(kind)).actions())
    assert page.analytics_enabled is False


def test_a_picture_is_painted_over_and_filled(client, tmp_path):
    painted = {
        "background": upload(kinds.draw_picture(), tmp_path),
        "layers": [upload(kinds.draw_layer(), tmp_path, "layer.png")],
        "composite": None,
    }
    note, pair, pictures = client.predict(*values("Inpainting", painted=painted, number=2), api_name="/inpainting")
    assert [picture["caption"].split()[0] for picture in pictures] == ["seed", "seed"]
    assert all(path.endswith(".png") for path in [*pair, *(picture["image"] for picture in pictures)])


def test_mistakes_are_sentences(client, tmp_path):
    words, packed = tmp_path / "words.png", tmp_path / "bomb.png"
    words.write_text("just words")
    packed.write_bytes(bomb(60_000))
    picture = upload(kinds.draw_picture(), tmp_path)
    unpainted = {"background": picture, "layers": [], "composite": None}
    for title, changes, sentence in (
        ("Deblurring", {"picture": gradio_client.handle_file(str(words))}, "Picture can't be read: not an image."),
        ("Deblurring", {"picture": gradio_client.handle_file(str(packed))}, "exceeds limit of 50000000 pixels"),
        ("Deblurring", {"picture": None}, "Picture is missing: upload a picture."),
        ("Deblurring", {"picture": picture, "number": 0}, "Pictures must be a number from 1 to 8, but is 0."),
        ("Deblurring", {"picture": picture, "seed": "-1"}, "Seed must be a number from 0 to 4294967295"),
        ("Deblurring", {"picture": picture, "longest_side": 10**9}, "Longest side must be a number from 1 to 1024"),
        ("Inpainting", {"painted": unpainted}, "The mask is empty: paint over what has to be made."),
    ):
        with pytest.raises(gradio_client.exceptions.AppError) as error:
            client.predict(*values(title, **changes), api_name=f"/{title.lower()}")
        assert sentence in str(error.value)
        assert "Traceback" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_two_visitors_at_once_get_what_each_would_get_alone(page, client, tmp_path):
    pictures = [upload(kinds.draw_picture((20, 12 + 4 * i)), tmp_path / str(i)) for i in range(2)]

    def restore(visitor, number):
        sent = values("Deblurring", picture=pictures[number], seed=str(number))
        made = visitor.predict(*sent, api_name="/deblurring")[-1]
        return [Path(picture["image"]).read_bytes() for picture in made]

    alone = [restore(client, number) for number in range(2)]
    together = [None, None]

    def visit(number):
        visitor = gradio_client.Client(page.local_url, verbose=False, download_files=str(tmp_path / f"of{number}"))
        together[number] = restore(visitor, number)

    visits = [threading.Thread(target=visit, args=(number,)) for number in range(2)]
    for visit_ in visits:
        visit_.start()
    for visit_ in visits:
        visit_.join()
    assert together == alone


def test_no_file_of_the_server_is_served(page, folder):
    secret = folder / "secret.txt"
    secret.write_text("a secret")
    for path in ("/etc/passwd", str(secret), "secret.txt", "../secret.txt", f"file://{secret}", str(Path(__file__))):
        for address in ("file=", "gradio_api/file=", "gradio_api/file/", "file/", "static/", "assets/"):
            status, content = get(page, address + path)
            assert status >= 400, (address, path)
            assert b"a secret" not in content and b"root:" not in content
    secret.unlink()


def test_the_server_asks_no_other_server_for_a_visitor(page):
    own = f"http://127.0.0.1:{page.server_port}/config"
    assert get(page, f"gradio_api/file={own}")[0] == 403
    assert get(page, "gradio_api/proxy=" + own)[0] >= 400


def call(page, name: str, sent: list) -> str:
    """What the page answers to a call that no browser would send."""
    status, content = post(page, f"gradio_api/call/{name}", json.dumps({"data": sent}).encode())
    if status != 200:
        return content.decode()
    return get(page, f"gradio_api/call/{name}/{json.loads(content)['event_id']}")[1].decode()


def test_a_visitor_cannot_name_a_file_of_the_server_as_an_upload(page, folder):
    kinds.write(kinds.draw_picture(), folder, "private.png")
    own = f"http://127.0.0.1:{page.server_port}/theme.css"
    for path in (str(folder / "private.png"), "private.png", "/etc/passwd", own):
        sent = values("Deblurring", picture={"path": path, "meta": {"_type": "gradio.FileData"}})
        answer = call(page, "deblurring", sent)
        assert "event: error" in answer and "event: complete" not in answer, path
    (folder / "private.png").unlink()


def test_uploads_and_all_other_requests_are_bounded(page):
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n%s\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    assert post(page, "gradio_api/upload", form % bytes(1000), kind)[0] == 200
    assert post(page, "gradio_api/upload", form % bytes(250_000), kind)[0] == 413
    for address in ("gradio_api/upload", "gradio_api/component_server", "gradio_api/call/deblurring"):
        assert post(page, address, form % bytes(400_000), kind)[0] == 413


def test_the_server_listens_to_this_machine_only_and_writes_to_its_own_folder(page, client, folder):
    assert page.server_name == "127.0.0.1"
    assert list(folder.iterdir()) == []
    status, html = get(page, "")
    assert status == 200 and b"Toy" in html
    for host in (b"fonts.googleapis.com", b"fonts.gstatic.com"):
        assert host not in html and host not in get(page, "theme.css")[1]
