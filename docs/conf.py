"""The documentation site: `make docs`. Its pages are in docs/ and research/."""

import re
from importlib.metadata import version as installed

from sphinx.application import Sphinx

project = "Chemtwin"
copyright = "the Chemtwin developers"
author = "the Chemtwin developers"
version = release = installed("chemtwin")

extensions = ["myst_nb", "sphinx_design", "sphinx_external_toc"]
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"
myst_heading_anchors = 3
external_toc_exclude_missing = False
include_patterns = ["docs/**", "research/**"]
exclude_patterns = ["docs/_build", ".*", "app", "benchmarks", "client", "index", "model", "tests", "training"]
external_toc_path = "docs/_toc.yml"
suppress_warnings = ["etoc.glob"]  # pages that may not be there yet

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "Chemtwin"
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
linkcheck_anchors = False
linkcheck_ignore = [r"http://localhost"]

CURL_AND_PYTHON = re.compile(
    r"^(```bash\n(?:(?!```).*\n)+```)\n\n(```python\n(?:(?!```).*\n)+```)$", re.MULTILINE
)
TABS = r"""::::{tab-set}
:::{tab-item} curl
\1
:::
:::{tab-item} Python
\2
:::
::::"""


def curl_and_python_as_tabs(app: Sphinx, name: str, source: list[str]) -> None:
    """Show a call with curl, and the same call with Python below it, as two tabs of the API's page."""
    if name == "docs/reference/api":
        source[0] = CURL_AND_PYTHON.sub(TABS, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", curl_and_python_as_tabs)
