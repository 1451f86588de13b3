"""Sphinx configuration."""

from importlib.metadata import version as installed

project = "numpyro_onestep"
author = "The numpyro_onestep developers"
version = release = installed("numpyro-onestep")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute"]

html_theme = "pydata_sphinx_theme"
html_title = "numpyro_onestep"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
# These stand alone: no section to navigate in.
html_sidebars = {"quickstart": [], "how_it_works": []}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
}

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Pages with code are run at every build; one that fails fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Single backticks in docstrings are code.
default_role = "code"
