"""Write examples/tutorial.ipynb, the tutorial as a notebook for Jupyter and other programs, from docs/tutorial.md.

python docs/notebook.py
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook

DOCS = Path(__file__).parent
NOTEBOOK = DOCS.parent / "examples" / "tutorial.ipynb"
INSTALL = 'Install first, in a clone of the repository: `pip install -e ".[imagenet]"`.'


def notebook() -> nbformat.NotebookNode:
    """Return the tutorial as a notebook without outputs; its links lead from examples/ to docs/."""
    read = read_myst_markdown_notebook((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    cells = []
    for number, cell in enumerate(read.cells):
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source, id=f"cell-{number}"))
        else:
            source = re.sub(r"\]\((?![a-z]+://)", "](../docs/", cell.source)
            cells.append(nbformat.v4.new_markdown_cell(source, id=f"cell-{number}"))
    cells.insert(1, nbformat.v4.new_markdown_cell(INSTALL, id="install"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


if __name__ == "__main__":
    nbformat.write(notebook(), NOTEBOOK)
