"""The only class of error that clients see, with a constructor for each errcode.

Code raises `errors.forbidden("You are not in this room")`; one Flask handler makes the response.
Any other exception is a bug: 500 M_UNKNOWN, with the traceback in the log.

Spec: client-server-api#standard-error-response
"""

from __future__ import annotations

from typing import Any

MAX_MESSAGE = 1000
"""Characters. Messages quote invalid input, which may be a megabyte long."""


class MatrixError(Exception):
    """The response to a client: an HTTP status, an errcode, a message for users, further fields."""

    def __init__(self, status: int, errcode: str, message: str, **fields: Any) -> None:
        if len(message) > MAX_MESSAGE:
            message = message[:MAX_MESSAGE] + "…"
        super().__init__(message)
        self.status = status
        self.errcode = errcode
        self.message = message
        self.fields = fields

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        return {"errcode": self.errcode, "error": self.message, **self.fields}


class UiaRequiredError(MatrixError):
    """A 401 with the stages that user-interactive authentication still requires.

    Spec: client-server-api#user-interactive-authentication-api
    """

    def __init__(self, challenge: dict[str, Any], failure: MatrixError | None = None) -> None:
        super().__init__(401, failure.errcode if failure else "", str(failure or ""))
        self.challenge = challenge
        self.failure = failure

    @property
    def body(self) -> dict[str, Any]:
        """The challenge; with errcode and error only if a stage was tried and failed."""
        return {**self.challenge, **(self.failure.body if self.failure else {})}


def forbidden(message: str, **fields: Any) -> MatrixError:
    """Report that the user may not do this, here or ever."""
    return MatrixError(403, "M_FORBIDDEN", message, **fields)


def guest_access_forbidden(message: str) -> MatrixError:
    """Report that guests may not do this, or that there are no guest accounts."""
    return MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", message)


def not_found(message: str) -> MatrixError:
    """Report that something does not exist, or that the user may not know whether it does."""
    return MatrixError(404, "M_NOT_FOUND", message)


def unrecognized(message: str = "Unknown endpoint", status: int = 404) -> MatrixError:
    """Report an unknown endpoint (404), or an unsupported method of a known one (405)."""
    return MatrixError(status, "M_UNRECOGNIZED", message)


def not_json(message: str = "The body is not JSON") -> MatrixError:
    """Report a body that could not be parsed."""
    return MatrixError(400, "M_NOT_JSON", message)


def bad_json(message: str, status: int = 400) -> MatrixError:
    """Report a body that is JSON, but not of the shape that the endpoint takes."""
    return MatrixError(status, "M_BAD_JSON", message)


def missing_param(message: str) -> MatrixError:
    """Report that a required key or query parameter is missing."""
    return MatrixError(400, "M_MISSING_PARAM", message)


def invalid_param(message: str) -> MatrixError:
    """Report a parameter with an invalid value."""
    return MatrixError(400, "M_INVALID_PARAM", message)


def unknown_pos(message: str = "The position is not known to this server") -> MatrixError:
    """Report a stream token that this server never issued."""
    return MatrixError(400, "M_UNKNOWN_POS", message)


def missing_token() -> MatrixError:
    """Report that the endpoint needs an access token."""
    return MatrixError(401, "M_MISSING_TOKEN", "An access token is required")


def unknown_token(
    message: str = "The access token is not known", *, soft_logout: bool = False
) -> MatrixError:
    """Report a token that was never issued or was revoked; `soft_logout` keeps its device."""
    return MatrixError(401, "M_UNKNOWN_TOKEN", message, soft_logout=soft_logout)


def unauthorized(message: str) -> MatrixError:
    """Report that a request of another server is not signed by it, or not meant for this one."""
    return MatrixError(401, "M_UNAUTHORIZED", message)


def too_large(message: str) -> MatrixError:
    """Report an event, a body or a file over its limit."""
    return MatrixError(413, "M_TOO_LARGE", message)


def user_limit_exceeded(message: str, info_uri: str) -> MatrixError:
    """Report that the account would exceed its quota; `info_uri` is a page about that for users."""
    return MatrixError(403, "M_USER_LIMIT_EXCEEDED", message, info_uri=info_uri)


def profile_too_large(message: str) -> MatrixError:
    """Report that the profile would be over its limit with the new field."""
    return MatrixError(400, "M_PROFILE_TOO_LARGE", message)


def key_too_large(message: str) -> MatrixError:
    """Report that the name of a profile field is too long."""
    return MatrixError(400, "M_KEY_TOO_LARGE", message)


def limit_exceeded(retry_after_ms: int) -> MatrixError:
    """Report too many requests; the handler adds the Retry-After header."""
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests", retry_after_ms=retry_after_ms)


def concurrent_write() -> MatrixError:
    """Report that another device has written since the text was read. Not in the specification."""
    code = "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"
    return MatrixError(409, code, "Another device has written meanwhile: read again")


def user_in_use(message: str = "This user name is taken") -> MatrixError:
    """Report that the user ID is or was in use."""
    return MatrixError(400, "M_USER_IN_USE", message)


def invalid_username(message: str) -> MatrixError:
    """Report a user name that breaks the grammar of user IDs."""
    return MatrixError(400, "M_INVALID_USERNAME", message)


def weak_password(message: str) -> MatrixError:
    """Report a password that is too short."""
    return MatrixError(400, "M_WEAK_PASSWORD", message)


def user_deactivated() -> MatrixError:
    """Report that the account was deactivated."""
    return MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")


def user_locked() -> MatrixError:
    """Report that an administrator has locked the account; clients keep their session."""
    return MatrixError(401, "M_USER_LOCKED", "This account is locked", soft_logout=True)


def expired_account() -> MatrixError:
    """Make the error for an account that an administrator has set to expire.

    The errcode is Synapse's; the specification has none for this.
    """
    return MatrixError(403, "ORG_MATRIX_EXPIRED_ACCOUNT", "This account has expired")


def user_suspended() -> MatrixError:
    """Report that an administrator has suspended the account: it may only read and leave."""
    return MatrixError(403, "M_USER_SUSPENDED", "You can't do this while you are suspended")


def cannot_leave_server_notice_room() -> MatrixError:
    """Report that the invite to the server notices cannot be rejected."""
    message = "The invite to the server notices can't be rejected"
    return MatrixError(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", message)


def threepid_denied(message: str) -> MatrixError:
    """Report that the server does not accept this e-mail address or telephone number."""
    return MatrixError(403, "M_THREEPID_DENIED", message)


def threepid_in_use(message: str = "This address belongs to another account") -> MatrixError:
    """Report that another account has this e-mail address."""
    return MatrixError(400, "M_THREEPID_IN_USE", message)


def threepid_auth_failed(message: str) -> MatrixError:
    """Report that the user has not proved to own the e-mail address."""
    return MatrixError(403, "M_THREEPID_AUTH_FAILED", message)


def threepid_not_found(message: str) -> MatrixError:
    """Report that no account has this e-mail address or telephone number."""
    return MatrixError(400, "M_THREEPID_NOT_FOUND", message)


def room_in_use(message: str) -> MatrixError:
    """Report that the alias is in use."""
    return MatrixError(400, "M_ROOM_IN_USE", message)


def alias_in_use(message: str) -> MatrixError:
    """Report that the alias to add points to a room already."""
    return MatrixError(409, "M_UNKNOWN", message)


def bad_alias(message: str) -> MatrixError:
    """Report that m.room.canonical_alias has an alias that does not point to the room."""
    return MatrixError(400, "M_BAD_ALIAS", message)


def unsupported_room_version(version: str) -> MatrixError:
    """Report that the server does not support this room version."""
    return MatrixError(
        400, "M_UNSUPPORTED_ROOM_VERSION", f"Room version {version!r} is not supported"
    )


def incompatible_room_version(version: str) -> MatrixError:
    """Report to another server that it does not support the version of the room."""
    message = f"Your server does not support room version {version!r}"
    return MatrixError(400, "M_INCOMPATIBLE_ROOM_VERSION", message, room_version=version)


def unable_to_authorise_join(message: str) -> MatrixError:
    """Report to another server that this one can't verify the conditions of a restricted join."""
    return MatrixError(400, "M_UNABLE_TO_AUTHORISE_JOIN", message)


def unable_to_grant_join(message: str) -> MatrixError:
    """Report to another server that it has to ask a third one for a restricted join."""
    return MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", message)


def invalid_room_state(message: str) -> MatrixError:
    """Report that the initial events of a new room contradict each other."""
    return MatrixError(400, "M_INVALID_ROOM_STATE", message)


def duplicate_annotation() -> MatrixError:
    """Report that the user has reacted to this event with the same key before."""
    return MatrixError(400, "M_DUPLICATE_ANNOTATION", "You have reacted to this event like that")


def invite_blocked(user_id: str) -> MatrixError:
    """Report that the user does not accept invites."""
    return MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not accept invites")


def not_in_thread(message: str) -> MatrixError:
    """Report that the event that is said to cause a subscription to a thread is not in it."""
    return MatrixError(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", message)


def conflicting_unsubscription() -> MatrixError:
    """Report that the user has unsubscribed from the thread after the event named as the cause."""
    message = "You have unsubscribed from this thread since then"
    return MatrixError(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", message)


def server_not_trusted(message: str) -> MatrixError:
    """Report that the request needs an identity server, which this server does not use."""
    return MatrixError(400, "M_SERVER_NOT_TRUSTED", message)


def unknown_device(message: str) -> MatrixError:
    """Report that the user does not have the device that an application service names."""
    return MatrixError(400, "M_UNKNOWN_DEVICE", message)


def url_not_set() -> MatrixError:
    """Report that the registration of the application service has no URL."""
    return MatrixError(400, "M_URL_NOT_SET", "The registration of this service has no url")


def bad_status(status: int, body: str) -> MatrixError:
    """Report that the application service responded with an error."""
    message = f"The application service answered with status {status}"
    error = MatrixError(502, "M_BAD_STATUS", message)
    error.fields |= {"status": status, "body": body}  # its own status is another
    return error


def connection_failed(message: str) -> MatrixError:
    """Report that the application service cannot be reached."""
    return MatrixError(502, "M_CONNECTION_FAILED", message)


def connection_timeout() -> MatrixError:
    """Report that the application service did not respond in time."""
    message = "The application service did not respond in time"
    return MatrixError(504, "M_CONNECTION_TIMEOUT", message)


def exclusive(message: str) -> MatrixError:
    """Report that the name belongs to an application service."""
    return MatrixError(400, "M_EXCLUSIVE", message)


def not_yet_uploaded() -> MatrixError:
    """Report that the media ID exists, but not yet its content."""
    return MatrixError(504, "M_NOT_YET_UPLOADED", "The content has not been uploaded yet")


def cannot_overwrite_media() -> MatrixError:
    """Report that the media ID has content already."""
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "This media ID has content already")


def invalid_signature(message: str) -> MatrixError:
    """Report that a required signature of an uploaded key is missing or wrong."""
    return MatrixError(400, "M_INVALID_SIGNATURE", message)


def wrong_room_keys_version(current_version: str) -> MatrixError:
    """Report that keys can be added only to the current version of a backup."""
    message = "That is not the current version of the backup"
    return MatrixError(403, "M_WRONG_ROOM_KEYS_VERSION", message, current_version=current_version)


def unknown(message: str, status: int = 400) -> MatrixError:
    """Report what no other errcode describes."""
    return MatrixError(status, "M_UNKNOWN", message)


def unavailable(message: str = "The server cannot write at the moment") -> MatrixError:
    """Report that the database is locked or the disk is full; nothing was changed."""
    return MatrixError(503, "M_UNKNOWN", message)
