"""Makes ``twistd proxpi`` known; what it does is loaded only when it is asked for."""

from twisted.application.service import ServiceMaker

proxpi = ServiceMaker(
    "proxpi", "proxpi.tap", "A caching proxy for Python package indexes", "proxpi"
)
