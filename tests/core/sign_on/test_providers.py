"""What is loaded for providers, and when."""

from __future__ import annotations

import subprocess
import sys


def test_without_a_login_no_cryptography_is_loaded() -> None:
    """It takes 20 MB."""
    code = "import sys, homebody.application; print({'joserfc', 'cryptography'} & set(sys.modules))"

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed == "set()\n"
