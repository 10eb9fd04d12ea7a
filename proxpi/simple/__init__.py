"""The Simple Repository API (PEP 503, 629, 691, 700, 714, 740, 792) as functions over values.

Nothing in this package does I/O, reads a clock, logs, or knows Twisted: bytes and values come in,
bytes and values go out, and so every rule of the specification is tested without a server.
"""
