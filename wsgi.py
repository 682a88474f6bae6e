"""What gunicorn runs from a checkout: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from homebody.server.wsgi import app

__all__ = ["app"]
