"""Settings of Sphinx for the site; :mod:`replication.site` gathers what it reads."""

from dataclasses import fields
from pathlib import Path

import mathjax

from poisoning.settings import Settings, described

project = "Data poisoning, rerun"
author = "the authors of this repository"
extensions = ["myst_nb", "sphinx.ext.autodoc"]

exclude_patterns = ["templates"]  # filled in before Sphinx runs

html_title = project
html_theme = "furo"
html_static_path = [
    "static",
    # One file with its fonts inside: formulas need no network.
    str(Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / "tex-svg.js"),
]
html_css_files = ["site.css", "verdicts.css"]
html_use_index = False  # a table too wide for a phone; the search finds names
html_show_search_summary = False  # summaries are fetched, which pages opened from a disk must not
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
mathjax_path = "tex-svg.js"

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "Code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# What scikit-learn adds to a class with keywords, and describes by its own glossary.
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
autodoc_typehints = "none"  # docstrings give shapes and units


def setup(app):
    app.connect("autodoc-process-docstring", with_settings)


def with_settings(app, what, name, thing, options, lines):
    """Add to the docstring of an attack what its settings mean, which stands in their fields."""
    if what == "class" and issubclass(thing, Settings):
        for one in fields(thing):
            if "about" in one.metadata:
                says = f"{one.metadata['about']}; {described(one.metadata)}"
                lines += [f"- ``{one.name}`` = {one.default!r}: {says}."]
        lines.append("")
