"""The page in a real browser: Debian's Chromium (`apt-get install chromium`), driven by playwright."""

import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from diffusers_ext.demo import serve_demo
from diffusers_ext.demo.panels import panel_for
from diffusers_ext.demo.space import write_space
from tests.demo import kinds


pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason='the page needs Gradio: pip install "diffusers_ext[demo]"')
playwright = pytest.importorskip(
    "playwright.sync_api", reason='the browser is driven by playwright: pip install "diffusers_ext[browser]"'
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 120_000  # milliseconds


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def visit(browser):
    """Opens the page of a kind, and notes what the browser asks for."""
    opened = []

    def open_page(kind):
        server = serve_demo(kinds.make(kind), title=kind, blocks=False)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(WAIT)
        tab.requested = []
        tab.on("request", lambda request: tab.requested.append(request.url))
        opened.append((tab, server))
        tab.goto(server.local_url)
        tab.get_by_role("button", name="Make").first.wait_for()
        return tab

    yield open_page
    for tab, server in opened:
        tab.close()
        server.close()


def open_action(tab, title, count):
    """The part of the page with the controls and results of an action."""
    if count == 1:
        return tab.locator("body")
    tab.get_by_role("tab", name=title, exact=True).click()
    return tab.locator("[role=tabpanel]:visible")


def upload(part, file):
    for field in part.locator("input[type=file]").all():
        field.set_input_files(file)
    part.page.wait_for_load_state("networkidle")


def paint(part):
    part.page.wait_for_timeout(8000)  # the editor draws the picture on its canvas, and tells nobody when it has
    box = part.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = part.page.mouse
    mouse.move(x - 20, y)
    mouse.down()
    mouse.move(x + 20, y + 10, steps=5)
    mouse.up()
    part.page.wait_for_timeout(1000)


@pytest.mark.parametrize("kind", kinds.MAKE)
def test_every_action_makes_a_picture(visit, kind, tmp_path):
    picture = kinds.write(kinds.draw_picture((120, 90)), tmp_path).path
    tab, actions = visit(kind), panel_for(kinds.make(kind)).actions()
    for action in actions:
        part = open_action(tab, action.title, len(actions))
        upload(part, picture)
        if part.locator("canvas").count():
            paint(part)
        if "prompt" in action.controls:
            part.locator("textarea").first.fill("a red square")
        steps = part.get_by_label("number input for Steps")
        if steps.count():
            steps.first.fill("2")
            steps.first.press("Tab")
        part.get_by_role("button", name="Make").click()
        made = part.locator(".grid-wrap img").first
        made.wait_for()
        tab.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=made.element_handle())
    own = tab.url.split("/")[2]
    assert {url.split("/")[2] for url in tab.requested if url.startswith("http")} == {own}


def test_mistakes_are_said_on_the_page(visit, tmp_path):
    words = tmp_path / "words.png"
    words.write_text("just words")
    tab = visit("translation")
    tab.get_by_role("button", name="Make").click()
    tab.get_by_text("Picture is missing: upload a picture.").wait_for()
    upload(tab.locator("body"), words)
    tab.get_by_role("button", name="Make").click()
    tab.get_by_text("Picture can't be read: not an image.").wait_for()


def test_the_app_of_a_space_serves_its_page(tmp_path):
    kinds.make("gan").save_pretrained(tmp_path / "gan")
    space = write_space(tmp_path / "gan", tmp_path / "space", title="A toy")
    process = subprocess.Popen([sys.executable, "app.py"], cwd=space, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if "http://" in line)
        port = line.rstrip("/ \n").rpartition(":")[2]
        deadline = time.monotonic() + 60
        while True:
            try:
                content = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        assert b"A toy" in content
    finally:
        process.terminate()
        process.wait()
