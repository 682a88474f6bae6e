"""What surrounds every request, and pages: see middleware.py."""

from homebody.web.middleware import Application, register

__all__ = ["Application", "register"]
