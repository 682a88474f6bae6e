"""homebody, a Matrix homeserver.

Reading starts in application.py: `create_app` is the whole server on one screen.
"""
