"""The WSGI application that gunicorn runs, configured by the environment."""

import os

from homebody.application import create_app
from homebody.config import settings

app = create_app(settings.load(None, os.environ))
