"""Unsupervised domain adaptation studies on Ray.

Importing this package imports neither torch nor ray: a table builds on a laptop without either.
"""

__version__ = "0.1.0"
