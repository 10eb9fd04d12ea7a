"""The index fetcher: what the indexes say of projects, kept as long as it is fresh.

It knows nothing of clients and nothing of files on disk.
"""
