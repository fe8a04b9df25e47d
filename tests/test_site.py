"""The documentation site: built strictly (a broken link, anchor or docstring fails), and it needs no network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed import FIGURES

import calql

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import versions  # noqa: E402 - a script, not a package

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)|<link\b[^>]*\bhref=\"?([^\s\">]+)")


pytestmark = pytest.mark.skipif(not FIGURES, reason="a source distribution lacks the figures that the site shows")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / "docs" / "versions.py", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dev"


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
    assert f"calql {calql.__version__} (not released)" in (site / "index.html").read_text(encoding="utf-8")


# -- versions ----------------------------------------------------------------------------------------------------------


def listed(folder: Path) -> list[tuple[str, list[str]]]:
    """Version and aliases of the file that the selector of a site reads."""
    return [(row["version"], row["aliases"]) for row in json.loads((folder / "versions.json").read_text())]


def test_every_page_has_the_selector_and_the_site_leads_to_the_only_version(site):
    (settings,) = re.findall(r"<script id=\"?__config\"?[^>]*>(.*?)</script>", (site / "tutorial.html").read_text())
    assert json.loads(settings)["version"] == {"provider": "mike"}
    assert listed(site.parent) == [("dev", [])]
    assert "url=dev/index.html" in (site.parent / "index.html").read_text()


def test_the_newest_release_is_the_entrance_and_others_stay(tmp_path):
    for name in ("dev", "0.9.0", "0.10.0", "0.10.0rc1", "images", "1.0"):
        (tmp_path / name).mkdir()
        if name != "1.0":  # a folder without pages
            (tmp_path / name / "index.html").touch()
    versions.enter(tmp_path)
    assert listed(tmp_path) == [("dev", []), ("0.10.0", ["latest"]), ("0.10.0rc1", []), ("0.9.0", [])]
    assert "url=0.10.0/index.html" in (tmp_path / "index.html").read_text()


def test_another_version_than_that_of_this_code_is_refused(tmp_path):
    (tmp_path / "9.9").mkdir()
    with pytest.raises(
        SystemExit, match=rf"this code is calql {calql.__version__}, not 9.9; check out the commit of 9.9"
    ):
        versions.build(tmp_path, "9.9")
    assert (tmp_path / "9.9").exists()
