"""Hooks of MkDocs: the site is made of docs/ and of what its pages link to elsewhere in the repository.

Pages outside docs/ (results, changelog) become pages, source files become pages with numbered lines, anything else is
copied. Links between files of the repository, as they work in a checkout, become links between pages.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename

import calql

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("results/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that are not in docs/ and have a place in the navigation."""
ENTRANCE = {"README.md": "docs/README.md"}
"""What stands in the site for a page that introduces the checkout."""
BOOSTS = {"CHANGELOG.md": 0.1}
"""Factors of a page's rank in the search: what holds now comes before what has changed."""
CODE = {".py", ".toml", ".sh"}
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")
"""A link or an image of Markdown to a file: no address of the web, and no place in the same page."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """State the version that the pages describe; a site of versions (docs/versions.py) has a selector of them."""
    config.copyright = f"calql {calql.__version__} · MIT licence"
    if version := os.environ.get("DOCS_VERSION"):
        config.extra["version"] = {"provider": "mike"}  # how Material calls the form of versions.json
        config.copyright = config.copyright.replace("·", "(not released) ·") if version == "dev" else config.copyright
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and every file that a page links to."""
    waiting = [f"docs/{page.src_uri}" for page in files.documentation_pages()] + [*OUTSIDE]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(_file(path, config))
        if path.endswith(".md"):
            found = [target for target in _linked(path) if (ROOT / target).is_file() and target not in seen]
            seen.update(found)
            waiting += found
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages, and rank the page."""
    here = page.file.src_uri
    page.meta["search"] = page.meta.get("search", {}) | {"boost": BOOSTS.get(here, 1)}
    if here.startswith("source/"):
        return markdown
    path = here if here in OUTSIDE or here.startswith(("results/", "examples/")) else f"docs/{here}"

    def to_page(found: re.Match) -> str:
        target = _resolved(path, found[2])
        if not (ROOT / target).is_file():
            return found[0]  # the strict build reports it
        return f"{found[1]}{posixpath.relpath(_address(target), posixpath.dirname(here))}{found[3] or ''}{found[4]}"

    return LINK.sub(to_page, markdown)


def _resolved(page: str, target: str) -> str:
    """A link's target, from the root of the repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return ENTRANCE.get(path, path)


def _linked(page: str) -> Iterator[str]:
    """The files, from the root of the repository, that a page links to."""
    for found in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        yield _resolved(page, found[2])


def _address(path: str) -> str:
    """Where a file of the repository is among the sources of the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}.md" if Path(path).suffix in CODE else path


def _file(path: str, config: MkDocsConfig) -> File:
    """A file outside docs/ as a source of the site."""
    if Path(path).suffix in CODE:
        return File.generated(config, _address(path), content=_listing(path))
    return File.generated(config, _address(path), abs_src_path=str(ROOT / path))


def _listing(path: str) -> str:
    """A page with a source file whose lines have the names L1, L2, …"""
    code = highlight(
        (ROOT / path).read_text(encoding="utf-8"), get_lexer_for_filename(path), HtmlFormatter(nowrap=True)
    )
    lines = code.replace("`", "&#96;").splitlines()
    body = "\n".join(f'<span id="L{number}">{line}</span>' for number, line in enumerate(lines, 1))
    front = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n"
    return f'{front}\n# {path}\n\n<div class="highlight listing"><pre><code>{body}\n</code></pre></div>\n'
