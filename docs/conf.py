"""The documentation site, built by ``make site``: Sphinx reads this folder, and what it makes itself goes to ``made/``.

Everything that the pages ask for lies beside them, so that the site works from a folder with the network off.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))

project = "fpt_viz"
author = project_copyright = "fpt_viz developers"
release = version = version_of("fpt_viz")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "site_parts.mathml",
    "site_parts.docstrings",
    "site_parts.pages",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["examples", "site_parts", "static"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!fpt_viz\.).*"),  # torch's, numpy's, jaxtyping's: their pages are on a network
]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
toc_object_entries = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Reference"]
napoleon_use_rtype = False
python_maximum_signature_line_length = 90
html_math_renderer = "mathml"

highlight_language = "none"  # a block that does not say what it is, is no Python
html_theme = "furo"
html_title = f"fpt_viz {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
