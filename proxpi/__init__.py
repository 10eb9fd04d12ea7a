"""proxpi: a caching reverse proxy for Python package indexes.

Only the version stands here, so that importing the package costs nothing;
``proxpi.tap`` is where the parts meet.
"""

__version__ = "2.0.0"
