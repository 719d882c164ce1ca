"""Sphinx's settings; `publish site` copies this beside the staged pages."""

project = "Generative models in artificial intelligence"
author = "the course"
root_doc = "index"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
exclude_patterns = ["static"]

nb_execution_mode = "off"  # outputs as committed
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
suppress_warnings = ["misc.highlighting_failure"]

# \color{red}{x} colours its argument alone, as in Jupyter and Colab
mathjax3_config = {
    "tex": {"autoload": {"color": [], "colorv2": ["color"]}, "maxBuffer": 20480},
    "options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"},
}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "search_bar_text": "Search the course",
    "navbar_persistent": [],  # the side bar has the search already
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "<p>Text and figures: CC BY 4.0. Code: MIT.</p>",
}
html_last_updated_fmt = None
html_show_copyright = False
