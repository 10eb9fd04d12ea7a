"""The way out as people inside companies have it, with real servers on it."""
