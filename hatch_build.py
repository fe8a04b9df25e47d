"""Put the commit into what is built, so that an installed package can say what it was made from."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds calql/commit.txt to wheel and sdist; a wheel that is built from an sdist takes over the sdist's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files; `version` is `editable` for an installation in place."""
        package = Path(self.root, "src", "calql")
        spec = importlib.util.spec_from_file_location("commit", package / "commit.py")
        ours = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(ours)
        commit = ours.git_commit()
        if commit is None or version == "editable" or (package / ours.COMMIT.name).exists():
            return
        self.folder = tempfile.TemporaryDirectory()
        written = Path(self.folder.name, ours.COMMIT.name)
        written.write_text(f"{commit}\n")
        place = "src/calql" if self.target_name == "sdist" else "calql"
        build_data["force_include"][str(written)] = f"{place}/{written.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after the build."""
        if hasattr(self, "folder"):
            self.folder.cleanup()
