"""The file mirror: package files, fetched once, verified, and kept on disk.

It knows nothing of clients, and of indexes only what its ``ProjectPages`` protocol tells it.
"""
