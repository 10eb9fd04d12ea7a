"""Refuses the import of the original's WSGI application with the command that starts proxpi.

After an upgrade in place, ``flask run`` and gunicorn still look for it here.
"""

raise ImportError(
    "proxpi 2 has no WSGI application for gunicorn, flask or other servers: "
    "twistd -n --pidfile= proxpi runs it, with the same variables"
)
