"""The documentation builds without a warning, its notebook and all; every command is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transferlens import cli

ROOT = Path(__file__).parent.parent


def test_every_command_is_documented():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    missing = [name for name in cli.COMMANDS if f"transferlens.{name}" not in pages and f"`{name}`" not in pages]
    assert not missing


def test_every_page_is_linked_to_what_exists():
    import re

    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        if "generated" in page.parts or "_build" in page.parts:
            continue
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), (page, link)


@pytest.mark.slow
def test_site_builds_without_a_warning_and_the_notebook_runs(tmp_path):
    pytest.importorskip("sphinx", reason='the site needs pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "site")]
    built = subprocess.run([*command, "-d", str(tmp_path / "trees")], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    tutorial = (tmp_path / "site" / "tutorial.html").read_text(encoding="utf-8")
    assert "positive attribution inside the event" in tutorial
