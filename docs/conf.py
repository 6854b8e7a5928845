"""The documentation site: `make docs`. Its pages are in docs/ and research/."""

from importlib.metadata import version as installed

project = "Chemtwin"
copyright = "the Chemtwin developers"
author = "the Chemtwin developers"
version = release = installed("chemtwin")

extensions = ["myst_nb", "sphinx_external_toc"]
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
