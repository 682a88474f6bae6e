"""How gunicorn runs homebody from a checkout: `gunicorn -c gunicorn.conf.py wsgi:app`."""

import sys
from pathlib import Path

from gunicorn.util import getcwd

# gunicorn has put the working folder first: that may have a `homebody` or a wsgi.py as well. Now it
# is the last one; without it, gunicorn would put it first again
sys.path.append(getcwd())
sys.path.remove(getcwd())
sys.path.insert(0, str(Path(__file__).parent))

from homebody.server.gunicorn_config import *  # noqa: F403 - gunicorn looks for settings by name
