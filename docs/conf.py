"""The documentation site: MyST pages, a notebook that is executed, API pages from the docstrings."""

import transferlens

project = "transferlens"
author = copyright = "The transferlens developers"
version = release = transferlens.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",  # the site needs no network
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = f"transferlens {version}"
html_static_path, html_css_files = ["_static"], ["site.css"]
smartquotes_action = "qe"  # not dashes: --option stays as it is

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True

autodoc_typehints = "none"  # the docstrings say more: shapes and units
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
copybutton_prompt_text = "$ "
