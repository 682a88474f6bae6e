"""The WSGI application of the configuration that the environment names: what gunicorn runs."""

import os

from homebody.application import create_app
from homebody.config import settings

app = create_app(settings.load(None, os.environ))
