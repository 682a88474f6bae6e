"""How gunicorn runs homebody from a checkout: `gunicorn -c gunicorn.conf.py wsgi:app`."""

import sys
from pathlib import Path

# Before the working folder, which gunicorn puts first: that may have a wsgi.py as well
sys.path.insert(0, str(Path(__file__).parent))

from homebody.server.gunicorn_config import *  # noqa: F403 - gunicorn looks for settings by name
