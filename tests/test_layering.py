"""Imports go one way: errors first, analyses last; siblings never import each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import transferlens
from transferlens import cli

PACKAGE = Path(transferlens.__file__).parent
# Siblings: what no line below names.
ANALYSES: list[str] = []
# Each module may import those of earlier lines only.
LAYERS = [
    ["errors", "lazy", "memory"],
    ["processes"],
    ["cli", "files", "engines"],
    ["claims"],
    ["index"],
    ["stats", "predictions", "corruptions", "canonical", "shapes", "manifest", "features"],
    ["moments", "display", "synth", "layouts", "augment", "downloads"],
    ["similarity", "audit"],
    ["listen"],
    ["datasets"],
    ["network"],
    ["weights", "layerwise", "attribution", "attribution_scores"],
    ["backbones"],
    ["plan"],
    ["config"],
    ["runs", "inputs", "precision"],
    ["trainer", "explanations", "planning"],
    ["saliency_tables", "explorer"],
    ["saliency_figures"],
    ["sweep"],
    ["by_block"],
    ANALYSES,
    ["tables", "robustness", "demo"],
    ["report"],
    ["study"],
    ["__main__", "__init__"],
]
ANALYSES += sorted({path.stem for path in PACKAGE.glob("*.py")} - {module for layer in LAYERS for module in layer})
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
HEAVY = ("torch", "timm", "matplotlib", "seaborn", "scipy", "librosa", "h5py", "captum")


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
    """Modules of the package that a file imports."""
    found = set(re.findall(r'lazy\.load\("transferlens\.(\w+)"\)', path.read_text()))
    for node in import_nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module == "transferlens":
            found |= {alias.name for alias in node.names} & RANK.keys()
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transferlens."):
            found.add(node.module.split(".")[1])
    return found


def drawing_libraries(path: Path) -> set[str]:
    """Which of matplotlib and seaborn a file imports, at once or lazily."""
    names = re.findall(r'lazy\.load\("(\w+)"\)', path.read_text())
    for node in import_nodes(path):
        from_another = isinstance(node, ast.ImportFrom) and node.module != "transferlens.lazy"
        names += [node.module or ""] if from_another else [alias.name for alias in node.names]
    return {name.split(".")[0] for name in names} & {"matplotlib", "images", "seaborn"}


def test_every_layer_is_of_modules_and_every_analysis_a_command():
    assert {path.stem for path in PACKAGE.glob("*.py")} == RANK.keys()
    assert set(ANALYSES) <= cli.COMMANDS.keys()


def test_the_stub_of_the_package_names_every_module():
    named = re.findall(r"^from \. import (\w+) as \1$", (PACKAGE / "__init__.pyi").read_text(), re.MULTILINE)
    assert named == sorted(RANK.keys() - {"__init__", "__main__"})


@pytest.mark.parametrize("module", sorted(RANK))
def test_imports_go_one_way(module):
    upward = {other for other in imports(PACKAGE / f"{module}.py") if RANK[other] >= RANK[module]}
    assert not upward


@pytest.mark.parametrize("module", sorted(RANK.keys() - {"network", "weights", "precision", "__main__"}))
def test_importing_loads_nothing_heavy(module):
    name = "transferlens" if module == "__init__" else f"transferlens.{module}"
    code = f"import sys, {name}; print([m for m in {HEAVY} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_only_display_draws():
    for path in PACKAGE.glob("*.py"):
        assert bool(drawing_libraries(path)) == (path.stem == "display"), path
        assert "plt.show" not in path.read_text()
