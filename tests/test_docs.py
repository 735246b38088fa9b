"""The documentation builds without a warning, its notebook and all; every command is in it."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from transferlens import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "RESULTS.md", *(ROOT / "docs").rglob("*.md")]
PAGES = [page for page in PAGES if not {"generated", "_build"} & {*page.parts}]


def test_every_command_is_documented():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in cli.COMMANDS if f"transferlens.{name}" not in pages and f"`{name}`" not in pages]
    assert not missing


def test_every_page_is_linked_to_what_exists():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), (page, link)


def written_commands():
    """Commands on the pages, as (page, module, words); placeholders in capitals stand for files."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for module, rest in re.findall(r"python -m ((?:transferlens|analyses)\.\w+)([^`\n|;]*)", text):
            words = shlex.split(rest, comments=True)
            if words and "..." not in words and module.islower():
                yield page.name, module, words


@pytest.mark.parametrize(("page", "module", "words"), [*written_commands()])
def test_every_written_command_can_be_parsed(page, module, words):
    options = getattr(importlib.import_module(module), "Options", None)
    if options:  # the other scripts hand their options on
        cli.parse(options, words, prog=module)


def test_the_api_pages_are_of_all_modules():
    package = ROOT / "transferlens"
    paths = [path.relative_to(ROOT).with_suffix("") for path in package.rglob("*.py") if "__" not in path.name]
    listed = re.findall(r"^   (transferlens\.[\w.]+)$", (ROOT / "docs/reference/api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(".".join(path.parts) for path in paths)


def test_the_tutorial_is_a_notebook_that_opens_anywhere(monkeypatch):
    """It is valid, of Python alone without magics or outputs, and made of the tutorial as it is."""
    nbformat = pytest.importorskip("nbformat", reason='notebooks need pip install -e ".[docs]"')
    path = ROOT / "examples" / "tutorial.ipynb"
    found = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(found)
    assert (found.nbformat, found.metadata.kernelspec.name) == (4, "python3")
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    for cell in code:
        compile(cell.source, path.name, "exec")
        assert not cell.outputs and cell.execution_count is None
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{code-cell\}\n(?::tags:[^\n]*\n)?\n?(.*?)\n```$", tutorial, re.MULTILINE | re.DOTALL)
    assert [cell.source for cell in code] == [block.strip() for block in blocks]
    for cell in found.cells:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", cell.source if cell.cell_type == "markdown" else ""):
            assert "://" in link or (path.parent / link).exists(), link
    pytest.importorskip("myst_nb", reason='the notebook is made with pip install -e ".[docs]"')
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module("notebook").notebook()
    assert nbformat.writes(made) + "\n" == path.read_text(encoding="utf-8"), "run python docs/notebook.py"


def test_site_builds_without_a_warning_and_the_notebook_runs(tmp_path):
    pytest.importorskip("sphinx", reason='the site needs pip install -e ".[docs]"')
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    docs = tmp_path / "docs"
    docs.unlink()
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("generated", "_build", "jupyter_execute"))
    tutorial = (docs / "tutorial.md").read_text(encoding="utf-8")
    shorter = tutorial.replace('"epochs": 4', '"epochs": 1')
    assert shorter != tutorial
    (docs / "tutorial.md").write_text(shorter, encoding="utf-8")
    options = ["-W", "--keep-going", "-q", "-b", "html", "-D", "toc_object_entries=0"]  # a third faster without
    command = [sys.executable, "-m", "sphinx", *options, str(docs), str(tmp_path / "site")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "positive attribution inside the event" in (tmp_path / "site" / "tutorial.html").read_text(encoding="utf-8")
