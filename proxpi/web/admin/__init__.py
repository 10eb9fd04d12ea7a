"""The home page: its template, and what goes into it."""
