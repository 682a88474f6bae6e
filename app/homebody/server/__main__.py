"""Run gunicorn as `python -m gunicorn` does, but without code of the working folder.

gunicorn puts that folder first in sys.path, unless it is there already: a folder `homebody` in it
would then run in place of this package, with the server's rights and secrets.
"""

import sys

from gunicorn.app.wsgiapp import run
from gunicorn.util import getcwd

sys.path.append(getcwd())
run(prog="gunicorn")
