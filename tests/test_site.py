"""The documentation site: built strictly (a broken link, anchor or docstring fails), and it needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed import FIGURES

import calql

ROOT = Path(__file__).resolve().parents[1]
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)|<link\b[^>]*\bhref=\"?([^\s\">]+)")


pytestmark = pytest.mark.skipif(not FIGURES, reason="a source distribution lacks the figures that the site shows")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site):
    """Every script, style and image is a file of the site, so that index.html opens without a network."""
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 60
    for page in pages:
        for found in LOADED.finditer(page.read_text(encoding="utf-8")):
            target = (found[1] or found[2]).partition("?")[0]
            if not target.startswith("data:"):
                assert (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?https?:", sheet.read_text(encoding="utf-8")), sheet


def test_the_api_has_every_public_name(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in calql.__all__ if f'id="calql.{name}"' not in text and f"id=calql.{name}" not in text] == []


def test_a_link_to_a_line_of_the_source_leads_there(site):
    (link,) = re.findall(
        r'href="([^"]*cql\.py\.html)#(L\d+)"[^>]*><code>CQL\.ood_actions', (site / "methods/cql.html").read_text()
    )
    listing = (site / "methods" / link[0]).read_text(encoding="utf-8")
    line = re.search(rf'<span id="{link[1]}">(.*)</span>', listing)
    assert line
    assert "ood_actions" in line[1]


def test_the_search_finds_options_and_no_listings(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "cql_alpha" in index
    assert '"location":"source/' not in index


def test_the_version_is_on_every_page(site):
    assert f"calql {calql.__version__}" in (site / "index.html").read_text(encoding="utf-8")
