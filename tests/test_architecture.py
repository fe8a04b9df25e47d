"""Data flow in one direction, ids stand in one table, files stay readable: the promises about the source itself.

Only syntax trees are read, so a lazy import inside a function counts like any other.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from calql.data.readers import READERS
from calql.extras import EXTRAS
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "calql"

TIERS = [
    {"commit", "types"},
    {"extras", "files", "limits", "machine", "rewards", "units"},
    {"tasks"},
    {"envs", "networks", "theory"},
    {"data"},
    {"replay"},
    {"algorithms"},
    {"methods", "export"},
    {"paper"},
    {"training", "evaluation"},
    {"trackers"},
    {"reports", "sweeps"},
    {"cli"},
]
TIER = {part: number for number, tier in enumerate(TIERS) for part in tier}


def module_of(path: Path) -> str:
    """`…/calql/paper/envs/pointmaze.py` → `envs.pointmaze`; a package is named by its folder, the root by ''."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {module_of(path): path for path in FILES}
PARTS = pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path) or "calql")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that the file imports, anywhere in it; in `from package import module`, the module."""
    package = ["calql", *module_of(path).split(".")] if module_of(path) else ["calql"]
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])
            base = base if node.level else node.module
            for name in node.names:
                full = f"{base}.{name.name}"
                yield full if full.removeprefix("calql.") in MODULES else base


def inner_imports(path: Path) -> set[str]:
    """The modules of calql that the file imports, without the `calql.` in front."""
    return {name.removeprefix("calql.") for name in imports(path) if name.startswith("calql.")} - {module_of(path)}


def libraries(path: Path) -> set[str]:
    """The top-level packages that the file imports."""
    return {name.partition(".")[0] for name in imports(path)}


def part(module: str) -> str:
    """The tier's member that a module belongs to; `__main__` is a command."""
    top = module.partition(".")[0]
    return "cli" if top == "__main__" else top


def strings(path: Path) -> Iterator[str]:
    """All string literals of the file other than docstrings (of modules, classes, functions and fields)."""
    docs = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


# -- the direction of imports ------------------------------------------------------------------------------------------


@PARTS
def test_every_module_has_a_tier(path):
    assert part(module_of(path)) in {"", *TIER}


@PARTS
def test_every_folder_is_a_package(path):
    assert (path.parent / "__init__.py").exists()


@PARTS
def test_imports_go_down_the_tiers(path):
    here = part(module_of(path))
    if here:
        against = {name for name in inner_imports(path) if TIER[part(name)] > TIER[here]}
        assert not against, f"{here} may not import {sorted(against)}"


@PARTS
def test_evaluation_does_not_know_training(path):
    if part(module_of(path)) == "evaluation":
        assert "training" not in {part(name) for name in inner_imports(path)}


def test_no_module_imports_itself_through_others():
    TopologicalSorter({module: inner_imports(path) for module, path in MODULES.items()}).prepare()


def test_no_part_imports_itself_through_others():
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        graph.setdefault(part(module), set()).update(map(part, inner_imports(path)))
    TopologicalSorter({here: others - {here} for here, others in graph.items()}).prepare()


@PARTS
def test_flax_is_imported_in_networks_only(path):
    if part(module_of(path)) != "networks":
        assert "flax" not in libraries(path)


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"jax", "flax", "gymnasium", *EXTRAS}
    code = f"import sys, calql.cli; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


CORE = """
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import calql
others = ("calql.paper.envs.", "calql.paper.demonstrators.", "calql.reports", "calql.__main__")
for module in pkgutil.walk_packages(calql.__path__, "calql."):
    if not module.name.startswith(others):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_the_core_stands_without_the_extras():
    """Every module but the paper's laboratory and the reports can be imported where no extra is installed."""
    done = subprocess.run([sys.executable, "-c", CORE, *EXTRAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"calql.training.loop", "calql.data.minari_writer", "calql.paper.tasks", "calql.cli.doctor"} <= {
        *done.stdout.split()
    }


# -- tables ------------------------------------------------------------------------------------------------------------


@PARTS
def test_task_ids_stand_in_the_table_of_tasks_only(path):
    if module_of(path) != "paper.tasks":
        ids = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, TASKS))})(?![\w-])")
        assert not [text for text in strings(path) if ids.search(text)]


@PARTS
def test_method_ids_stand_in_the_table_of_methods_only(path):
    if module_of(path) != "paper.methods":
        assert not [text for text in strings(path) if text in METHODS.keys() - READERS.keys()]  # AWAC's files, too


# -- size --------------------------------------------------------------------------------------------------------------


def lines(name: str) -> int:
    return len((SOURCE / name).read_text(encoding="utf-8").splitlines())


def test_cal_ql_is_cql_with_one_term():
    assert lines("algorithms/cal_ql.py") <= 70


# -- files are data, never code ----------------------------------------------------------------------------------------


@PARTS
def test_nothing_foreign_is_executed(path):
    if module_of(path) == "data.readers.safe_pickle":
        return
    assert not {"pickle", "cloudpickle", "dill", "marshal", "shelve"} & libraries(path)
    for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
        assert not (isinstance(call.func, ast.Name) and call.func.id in {"eval", "exec"}), ast.unparse(call)
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert isinstance(keyword.value, ast.Constant), ast.unparse(call)
                assert keyword.value.value is False, ast.unparse(call)


def test_no_file_names_the_host_of_a_package_registry():
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    host = re.compile(rb"(pypi|pythonhosted|npmjs|anaconda|debian)\.(org|com)", re.IGNORECASE)
    paths = [ROOT / name for name in files.stdout.split("\0") if name]
    assert not [str(path) for path in paths if path.is_file() and host.search(path.read_bytes())]
