"""proxpi: a caching reverse proxy for Python package indexes.

Only the version stands here, so that importing the package costs nothing. The composition root is
``proxpi.tap``.
"""

__version__ = "2.0.0"
