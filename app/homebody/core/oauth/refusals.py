"""What the OAuth 2.0 API refuses, with the error codes of its RFCs instead of Matrix's."""

from __future__ import annotations


class OAuthError(Exception):
    """A request that is refused: the keys `error` and `error_description` of the response."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status


class ReplayError(OAuthError):
    """A code or refresh token that was used before: the session that it started must end."""

    def __init__(self, description: str, user_id: str, device_id: str) -> None:
        super().__init__("invalid_grant", description)
        self.user_id = user_id
        self.device_id = device_id


def invalid_request(description: str) -> OAuthError:
    """Return the error for a missing, repeated or malformed parameter."""
    return OAuthError("invalid_request", description)


def invalid_client() -> OAuthError:
    """Return the error for a client that is not registered, or not any more."""
    return OAuthError("invalid_client", "The client is not registered: register it again", 401)


def invalid_grant(description: str) -> OAuthError:
    """Return the error for a code or refresh token that is not valid."""
    return OAuthError("invalid_grant", description)


def invalid_scope(description: str) -> OAuthError:
    """Return the error for a scope that is unknown, malformed or too large."""
    return OAuthError("invalid_scope", description)


def unauthorized_client(description: str) -> OAuthError:
    """Return the error for what the client did not register for."""
    return OAuthError("unauthorized_client", description)
