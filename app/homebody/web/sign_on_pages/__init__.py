"""The pages of a login at another provider, below /_homebody/sign-on/.

A login begins with a link to `/start/{provider}`, which leads the browser to the provider. That
leads it back to `/callback/{provider}`, where this server learns who the user is there, and on to
`/finish`, which starts a session, or asks what else it needs to know.
"""

from typing import Final

from homebody.web.browser_sessions import PREFIX as PAGES

PREFIX: Final = f"{PAGES}sign-on"
