"""Registers ``twistd proxpi``, whose code is imported when the command is used."""

from twisted.application.service import ServiceMaker

proxpi = ServiceMaker(
    "proxpi", "proxpi.tap", "A caching proxy for Python package indexes", "proxpi"
)
