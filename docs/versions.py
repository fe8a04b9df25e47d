"""Builds the documentation of one version into its folder of the site, and lists the versions that are there.

    python docs/versions.py site          # as dev: what is being worked on
    python docs/versions.py site 0.1.0    # as the release that this code is

The site needs nothing but a web server for files. Each version is a folder; versions.json tells the selector at the top
of every page (Material's, which reads mike's form) what there is; index.html leads to the newest release, else dev.
A version is published by building its commit into a copy of the site that is published; the others stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

import calql

ROOT = Path(__file__).resolve().parents[1]
DEV = "dev"
"""The folder of what is not released."""
ENTRANCE = """<!doctype html>
<meta charset="utf-8">
<title>calql</title>
<meta http-equiv="refresh" content="0; url={0}/index.html">
<a href="{0}/index.html">calql {0}</a>
"""


def build(site: Path, version: str = DEV) -> Path:
    """Build the pages strictly into site/VERSION, and list all versions; returns the folder.

    Raises SystemExit if this code is of another version, or if the build fails.
    """
    if version not in (DEV, calql.__version__):
        sys.exit(f"error: this code is calql {calql.__version__}, not {version}; check out the commit of {version}")
    folder = site / version
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder.absolute()]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"DOCS_VERSION": version, "NO_MKDOCS_2_WARNING": "1"})
    if done.returncode:
        sys.exit(done.returncode)
    enter(site)
    return folder


def enter(site: Path) -> None:
    """Write versions.json and index.html for the versions that are in the site's folder."""
    versions = versions_in(site)
    releases = [version for version in versions if version != DEV]
    rows = [
        {"version": version, "title": version, "aliases": ["latest"] if releases[:1] == [version] else []}
        for version in versions
    ]
    (site / "versions.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (site / "index.html").write_text(ENTRANCE.format((releases or versions)[0]), encoding="utf-8")


def versions_in(site: Path) -> list[str]:
    """The versions whose pages are in the site's folder: dev, then the releases, newest first."""
    releases = []
    for page in site.glob("*/index.html"):
        try:
            releases.append((Version(page.parent.name), page.parent.name))
        except InvalidVersion:  # dev, or a folder of somebody else
            continue
    return [DEV] * (site / DEV / "index.html").exists() + [name for _, name in sorted(releases, reverse=True)]


if __name__ == "__main__":
    print(f"wrote {build(Path(sys.argv[1]), *sys.argv[2:])} (look at it: python -m http.server -d {sys.argv[1]})")
