"""The report of a run: what it shows, and that a resumed run continues it."""

import base64
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from diffusers_ext.training.loop import trainer as trainer_module
from diffusers_ext.training.loop.html_report import GRIDS, POINTS, Progress, write_report
from diffusers_ext.training.loop.metrics_log import MetricsLog
from diffusers_ext.training.loop.share_of_time import ShareOfTime
from tests.training.small_run import small_run


class Page(HTMLParser):
    """The parts of a page, and the check that every element is closed."""

    VOID = {"meta", "img", "line", "polygon", "polyline"}

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.images, self.captions, self.points = text, [], [], [], {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes["src"])
        if tag == "polyline":
            self.points[self.captions[-1]] = attributes["points"].split()

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)


def write_log(folder, steps):
    with MetricsLog(folder / "logs", resume_step=0) as log:
        for step in steps:
            log.write(step, loss=100.0 / step, lr=0.1)
        log.write(10, evaluation=[{"task": "a<b", "fid": 12.3456, "provenance": {"n": 1}}])


def report(folder, step, last, **keywords):
    options = {"train_data_dir": "<photos>", "seed": 3}
    write_report(folder, "my <run>", Progress(step, last, 90.0), options, **keywords)
    return Page((folder / "report.html").read_text())


def test_what_it_shows(tmp_path):
    write_log(tmp_path, range(1, 2001))
    (tmp_path / "samples").mkdir()
    for step in range(100, 2100, 100):
        Image.new("RGB", (4, 4)).save(tmp_path / "samples" / f"step-{step}.png")
    page = report(tmp_path, 1500, 3000, command="accelerate launch x.py --a '<b>'")
    assert "In progress: step 1500 of 3000, 1.5 minutes of training." in page.text
    assert page.captions[:2] == ["loss", "Step 100"] and page.captions[GRIDS] == "Step 1500"
    assert len(page.images) == GRIDS and set(page.points) == {"loss", "lr"}
    assert 200 < len(page.points["loss"]) <= POINTS
    assert base64.b64decode(page.images[0].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "<td>12.35</td>" in page.text and "a&lt;b" in page.text and "provenance" not in page.text
    assert "&lt;photos&gt;" in page.text and "<photos>" not in page.text and "<run>" not in page.text
    assert not re.search(r"https?://|<script|url\(", page.text)


def test_a_run_without_logs_has_a_report(tmp_path):
    page = report(tmp_path, 0, 5)
    assert not page.images and not page.points


def test_a_finished_run_shows_its_last_grid_and_measures(tmp_path):
    write_log(tmp_path, range(1, 4))
    Image.new("RGB", (4, 4)).save(tmp_path / "samples.png")
    page = report(tmp_path, 3, 3, rows=[{"fid": 1.5}])
    assert "Finished: step 3 of 3" in page.text and page.captions[1] == "Step 3" and "<td>1.5</td>" in page.text


@pytest.fixture
def often(monkeypatch):
    """Grids are due at each step."""
    monkeypatch.setattr(trainer_module, "ShareOfTime", lambda: ShareOfTime(first=0.0, growth=0.0, share=1e9))


def test_a_resumed_run_continues_its_report_without_gaps_or_duplicates(tmp_path, often):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    small_run(whole).train()
    run = small_run(parts)
    step = run.recipe.step

    def killed(batch, draw):
        step(batch, draw)
        if draw.step == 4:
            raise KeyboardInterrupt

    run.recipe.step = killed
    with pytest.raises(KeyboardInterrupt):
        run.train()
    (parts / "samples" / "step-5.png").write_bytes(b"of the killed run, after its last checkpoint")
    small_run(parts, resume_from_checkpoint="latest").train()
    pages = [Page((folder / "report.html").read_text()) for folder in (whole, parts)]
    assert pages[0].captions == pages[1].captions and pages[0].images == pages[1].images
    assert pages[0].points == pages[1].points and len(pages[0].points["critic_loss"]) == 6
    assert [caption for caption in pages[0].captions if "Step" in caption] == [f"Step {i}" for i in range(1, 7)]


def test_a_short_run_makes_one_grid_and_a_report(tmp_path):
    small_run(tmp_path).train()
    assert not (tmp_path / "samples").exists()
    assert len(Page((tmp_path / "report.html").read_text()).images) == 1
    small_run(tmp_path).train()  # a new run in the same folder
    assert len(list((tmp_path / "earlier-runs").iterdir())) == 1


def test_grids_can_be_turned_off(tmp_path, often):
    small_run(tmp_path, validation_steps=0).train()
    assert not (tmp_path / "samples").exists()


def test_what_takes_long_is_done_rarely(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("diffusers_ext.training.loop.share_of_time.time.perf_counter", lambda: now[0])
    share, done, spent = ShareOfTime(share=0.02, first=100.0, growth=0.1), [], 0.0
    while now[0] < 50_000:
        now[0] += 1
        if share.is_due():
            with share.spent():
                done.append(now[0])
                now[0] += 10
                spent += 10
    assert done[0] == 100 and done[1] == 100 + 10 + 500
    assert spent < 0.02 * now[0] and len(done) < 60
    assert done[-1] - done[-2] > 0.08 * now[0]
