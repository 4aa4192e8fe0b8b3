"""The documentation builds without a warning, opens without a network, and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from checkout import ROOT

DOCS = ROOT / "docs"


Build = Callable[[str, Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Runs Sphinx; the pages are read once for all builders."""
    read = tmp_path_factory.mktemp("doctrees")

    def run(builder: str, target: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder]
        return subprocess.run(
            [*command, "-d", str(read), str(DOCS), str(target)],
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="module")
def site(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    target = tmp_path_factory.mktemp("site")
    done = build("html", target)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


class Loads(HTMLParser):
    """Collects the addresses that a browser loads by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {"link": "href"}.get(tag, "src")
        self.found += [value for name, value in attributes if name == names and value]


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.found, page
        assert not [at for at in loads.found if re.match(r"\w+:|//", at)], page
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", sheet.read_text())
        assert not [at for at in addresses if re.match(r"https?:|//", at)], sheet


def test_every_key_of_a_profile_has_an_entry(site: Path) -> None:
    from lft.config import Profile

    page = (site / "reference/settings.html").read_text()
    for key in Profile.model_fields:
        assert f'id="lft.config.Profile.{key}"' in page
    assert "never silently another" in page
    assert "Default: <code" in page


def test_examples_do_what_they_say(build: Build, tmp_path: Path) -> None:
    done = build("doctest", tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(re.findall(r"(\d+) tests$", (tmp_path / "output.txt").read_text(), re.M)[-1]) > 40
