"""What gunicorn runs: `gunicorn -c gunicorn.conf.py wsgi:app`."""

import os

from app import config, create_app

app = create_app(config.load(None, os.environ))
