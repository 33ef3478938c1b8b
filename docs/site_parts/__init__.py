"""What the site is made with, beside Sphinx: pages from notebooks, the command line, the errors and the docstrings."""
