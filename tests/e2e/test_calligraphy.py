"""The story `calligraphy` from end to end: trained by its own script, packed, served, asked over HTTP and by pages of both origins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from test_page import DESK, PHONE, Visit, answered, shot
from test_page import browser as browser

import needed
from test_cli_serve import environment, run, started

EXAMPLE = Path(__file__).parents[2] / "examples" / "calligraphy"
HANDS = ("blackletter", "roman", "script")


class Pages(SimpleHTTPRequestHandler):
    """Serves the front end."""

    def log_message(self, *words: object) -> None:
        """Nothing: a test has no terminal to talk to."""


@contextmanager
def front_end() -> Iterator[str]:
    """The origin of the front end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(EXAMPLE / "frontend")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Story:
    """The service, and what asks it."""

    url: str
    samples: Path
    allowed: str
    """The origin of a front end that may call it."""
    stranger: str
    """That of one which may not."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    needed.torch("fastai", "torchvision")
    needed.fonts("Blankenburg", "DancingScript", "DejaVuSerif")
    folder = tmp_path_factory.mktemp("calligraphy")
    for name in ("train.py", "modelport.toml"):
        shutil.copy(EXAMPLE / name, folder)
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    trained = subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=300, env=one)
    assert trained.returncode == 0, trained.stderr[-2000:]
    packed = run(folder, "pack")
    assert packed.returncode == 0, packed.stderr
    with front_end() as allowed, front_end() as stranger:
        with started(folder, "serve", "calligraphy", "--port", "0", "--cors", allowed) as (_, serving, url):
            assert serving["engines"] == ["onnx"]
            yield Story(url, folder / "samples", allowed, stranger)


@pytest.fixture(scope="module")
def told(story: Story) -> dict[str, dict[str, Any]]:
    """What the service answers to each of the samples."""
    with httpx.Client(base_url=story.url, trust_env=False) as client:
        return {
            path.name: client.post("/predict", content=path.read_bytes(), headers={"Content-Type": "image/jpeg"}).json()
            for path in sorted(story.samples.iterdir())
        }


def test_the_hands_are_told_over_http(told: dict[str, dict[str, Any]]) -> None:
    assert list(told) == [f"{hand}-{number}.jpg" for hand in HANDS for number in (1, 2)]
    assert all(set(answer["probabilities"]) == set(HANDS) for answer in told.values())
    right = [name for name, answer in told.items() if answer["prediction"] == name.partition("-")[0]]
    assert len(right) >= 5, told


def test_its_page_says_whose_hand_a_picture_shows(story: Story, browser: Browser, told: dict[str, dict[str, Any]]) -> None:
    with Visit(browser, story.url) as page:
        expect(page.get_by_role("heading", name="Whose hand?")).to_be_visible()
        expect(page.get_by_text("Drop a picture of some lettering")).to_be_visible()
        for hand in HANDS:
            page.locator("input[type=file]").first.set_input_files(story.samples / f"{hand}-2.jpg")
            expect(page.locator(".view img")).to_have_attribute("alt", f"{hand}-2.jpg")
            expect(page.locator(".value").first).to_have_text(told[f"{hand}-2.jpg"]["prediction"])
        answered(page)
        shot(page, "calligraphy")


@contextmanager
def opened(browser: Browser, story: Story, origin: str, **options: object) -> Iterator[Page]:
    context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{origin}/?service={story.url}")
    try:
        yield page
    finally:
        context.close()


def drop(page: Page, path: Path) -> None:
    """Drop a picture on the zone, as a hand with a mouse would."""
    given = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    page.dispatch_event(".zone", "drop", {"dataTransfer": given})


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_page_of_another_origin_gets_the_label(story: Story, browser: Browser, told: dict[str, dict[str, Any]], look: str) -> None:
    phone = {"viewport": PHONE, "has_touch": True} if look == "dark" else {}
    with opened(browser, story, story.allowed, color_scheme=look, **phone) as page:
        shot(page, f"calligraphy-front-end-{look}-before")
        drop(page, story.samples / "script-1.jpg")
        first, second = told["script-1.jpg"]["prediction"], told["blackletter-1.jpg"]["prediction"]
        expect(page.locator(".label")).to_have_text(first)
        assert page.locator("li span:first-child").first.inner_text() == first
        expect(page.locator("li")).to_have_count(3)
        page.locator("input[type=file]").set_input_files(story.samples / "blackletter-1.jpg")
        expect(page.locator("img")).to_have_attribute("alt", "blackletter-1.jpg")
        expect(page.locator(".label")).to_have_text(second)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
        shot(page, f"calligraphy-front-end-{look}")


def test_an_origin_that_was_not_named_gets_none(story: Story, browser: Browser) -> None:
    with opened(browser, story, story.stranger) as page:
        drop(page, story.samples / "script-1.jpg")
        expect(page.locator(".wrong")).to_have_text(f"No answer from {story.url}. Does it run, and with --cors {story.stranger}?")


def test_what_is_no_picture_is_told_to_another_origin_in_words(story: Story, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("<svg></svg>")
    with opened(browser, story, story.allowed) as page:
        drop(page, tmp_path / "notes.jpg")
        expect(page.locator(".wrong")).to_contain_text("is an SVG drawing, and no JPEG, PNG or WEBP picture")


def test_the_title_comes_from_the_environment_too(story: Story, browser: Browser) -> None:
    folder = story.samples.parent
    with started(folder, "serve", "calligraphy", "--port", "0", TITLE="The hand", SUBTITLE="Of whom?") as (_, _, url):
        with Visit(browser, url) as page:
            expect(page.get_by_role("heading", name="The hand")).to_be_visible()
            expect(page.get_by_text("Of whom?")).to_be_visible()


def test_a_missing_font_is_named_with_its_package(tmp_path: Path) -> None:
    program = "import train; train.fonts('fonts-blankenburg', ['Nowhere'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=EXAMPLE, capture_output=True, text=True, env=environment(tmp_path))
    assert (done.returncode, done.stderr) == (1, "no font Nowhere in /usr/share/fonts: sudo apt-get install fonts-blankenburg\n")
