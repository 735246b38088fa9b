"""The floors of the house: a folder imports only folders to its left, and no imports go in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import transferlens
from transferlens import cli

PACKAGE = Path(transferlens.__file__).parent
# Folders of one line do not import each other; those of a line import earlier lines only.
FLOORS = [
    ["util"],
    ["data", "models"],
    ["features", "measures"],
    ["store", "plots"],
    ["training", "explain"],
    ["compare"],
]
RANK = {folder: rank for rank, floor in enumerate(FLOORS) for folder in floor}
HEAVY = ("torch", "timm", "matplotlib", "seaborn", "scipy", "librosa", "h5py", "captum", "pandas", "sklearn")


def name_of(path: Path) -> str:
    """A module's name inside the package: "store.run", "cli"; a folder's for its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def import_nodes(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a file that happen when it runs; those for type checkers alone do not count."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    return [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and id(n) not in guarded]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, at once or lazily."""
    found = set(re.findall(r'lazy\.load\("transferlens\.([\w.]+)"\)', path.read_text()))
    for node in import_nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transferlens":
            inside = node.module.removeprefix("transferlens").removeprefix(".")
            for alias in node.names:
                dotted = f"{inside}.{alias.name}".removeprefix(".")
                found.add(dotted if dotted in MODULES else inside)
    return found - {""}


IMPORTS = {module: imports(path) for module, path in MODULES.items() if module != "__init__"}


def floor(module: str) -> int:
    """The floor of a module's folder; the top level is above all folders."""
    return RANK[module.split(".")[0]] if module.split(".")[0] in RANK else len(FLOORS)


def folder(module: str) -> str:
    return module.split(".")[0] if module.split(".")[0] in RANK else ""


def libraries(path: Path) -> set[str]:
    """The libraries that a file imports, at once or lazily."""
    names = re.findall(r'lazy\.load\("(\w+)"\)', path.read_text())
    for node in import_nodes(path):
        from_another = isinstance(node, ast.ImportFrom) and node.module != "transferlens.util.lazy"
        names += [node.module or ""] if from_another else [alias.name for alias in node.names]
    return {name.split(".")[0] for name in names}


def test_every_folder_has_its_floor():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(RANK)


def test_every_file_at_the_top_is_a_command():
    files = {module for module in MODULES if folder(module) == ""}
    assert files == {*cli.COMMANDS, "cli", "options", "__main__", "__init__"}


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_go_to_the_left(module):
    wrong = {
        other
        for other in IMPORTS[module]
        if floor(other) > floor(module) or (floor(other) == floor(module) and folder(other) != folder(module))
    }
    assert not wrong


def test_no_imports_go_in_a_circle():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, with the circle


def test_questions_do_not_import_each_other():
    def questions(modules):
        return {other for other in modules if folder(other) == ""} - {"cli", "options"}

    others = {module: questions(IMPORTS[module]) for module in cli.COMMANDS}
    assert {module: names for module, names in others.items() if names} == {}


def test_only_plots_draws():
    drawing = {module for module, path in MODULES.items() if libraries(path) & {"matplotlib", "images", "seaborn"}}
    assert {folder(module) for module in drawing} == {"plots"}
    assert not [module for module, path in MODULES.items() if "plt.show" in path.read_text()]


def test_only_the_top_level_knows_the_command_line():
    knows = {m for m, p in MODULES.items() if IMPORTS.get(m, set()) & {"cli", "options"} or "tyro" in libraries(p)}
    assert {folder(module) for module in knows} == {""}


def test_only_the_terminal_prints():
    """What others print could hold names that control the terminal; `__main__` prints its own words."""

    def prints(path):
        return any(
            getattr(getattr(node, "func", None), "id", "") == "print" for node in ast.walk(ast.parse(path.read_text()))
        )

    assert {module for module, path in MODULES.items() if prints(path)} == {"util.terminal", "__main__"}


# Those that define modules of torch.
TORCH = {"models.anatomy", "models.costs", "models.network", "models.precision", "features.frontend", "store.hear"}
LIGHT = sorted(MODULES.keys() - TORCH)


def test_importing_loads_nothing_heavy():
    """One module after the other in one process: each is named with the libraries that came with it."""
    code = f"""
import importlib, sys
loaded = set()
for module in {LIGHT}:
    importlib.import_module("transferlens" if module == "__init__" else f"transferlens.{{module}}")
    if new := {{*{HEAVY}}} & sys.modules.keys() - loaded:
        print(module, *sorted(new))
    loaded |= new
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == ""
