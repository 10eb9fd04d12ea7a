"""Pages and project lists: requested from the indexes, revalidated, merged, rendered and stored.

Nothing here knows HTTP clients of proxpi, or package files.
"""
