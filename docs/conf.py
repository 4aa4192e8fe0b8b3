"""Documentation: Markdown by MyST, reference from docstrings. `make docs` builds it."""

import re

import lft.config
import lft.results.manifest  # autodoc cannot import models that allow more keys by itself

project = "lft-bench"
author = copyright = "lft-bench contributors"
version = release = lft.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinxcontrib.typer",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config, model_post_init",
    "member-order": "bysource",
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
napoleon_use_ivar = True

doctest_test_doctest_blocks = "default"

html_theme = "furo"
html_title = "lft-bench"
html_copy_source = False
html_show_sphinx = False


def setup(app):
    app.connect("autodoc-process-docstring", show_default)
    app.connect("autodoc-process-docstring", keep_bars)


def show_default(app, what, name, obj, options, lines):
    """Add its default to a setting: pydantic keeps it where autodoc does not look."""
    owner, _, field = name.removeprefix("lft.config.").rpartition(".")
    info = getattr(getattr(lft.config, owner, None), "model_fields", {}).get(field)
    if info is not None:
        lines += ["", "Required." if info.is_required() else f"Default: ``{info.default!r}``"]


def keep_bars(app, what, name, obj, options, lines):
    """|D| is a size in docstrings, not a substitution of reStructuredText."""
    for index, line in enumerate(lines):
        text = re.split(r"(``.*?``)", line)
        text[::2] = [part.replace("|", r"\|") for part in text[::2]]
        lines[index] = "".join(text)
