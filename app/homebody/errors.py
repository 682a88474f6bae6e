"""The one class of error that a client sees, with a constructor for each errcode.

Code raises `errors.forbidden("You are not in this room")`; one Flask handler makes the answer.
Any other exception is a fault of ours: 500 M_UNKNOWN, with the trace in the log.

Spec: client-server-api#standard-error-response
"""

from __future__ import annotations

from typing import Any

MAX_MESSAGE = 1000
"""Characters. Sentences quote what was wrong, and ids may come with a megabyte."""


class MatrixError(Exception):
    """What the client gets: an HTTP status, an errcode, a sentence for people, further fields."""

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
        """The JSON object of the answer."""
        return {"errcode": self.errcode, "error": self.message, **self.fields}


class UiaRequiredError(MatrixError):
    """401 with the stages that user-interactive authentication still wants.

    Spec: client-server-api#user-interactive-authentication-api
    """

    def __init__(self, challenge: dict[str, Any], failure: MatrixError | None = None) -> None:
        super().__init__(401, failure.errcode if failure else "", str(failure or ""))
        self.challenge = challenge
        self.failure = failure

    @property
    def body(self) -> dict[str, Any]:
        """The challenge; errcode and error only where a stage was tried and failed."""
        return {**self.challenge, **(self.failure.body if self.failure else {})}


def forbidden(message: str, **fields: Any) -> MatrixError:
    """The user may not do this, here or ever."""
    return MatrixError(403, "M_FORBIDDEN", message, **fields)


def guest_access_forbidden(message: str) -> MatrixError:
    """Guests may not do this, or there are none."""
    return MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", message)


def not_found(message: str) -> MatrixError:
    """There is no such thing, or it is none of the user's business whether there is."""
    return MatrixError(404, "M_NOT_FOUND", message)


def unrecognized(message: str = "Unknown endpoint", status: int = 404) -> MatrixError:
    """The server knows no such endpoint (404), or not with this method (405)."""
    return MatrixError(status, "M_UNRECOGNIZED", message)


def not_json(message: str = "The body is not JSON") -> MatrixError:
    """The body could not be parsed at all."""
    return MatrixError(400, "M_NOT_JSON", message)


def bad_json(message: str, status: int = 400) -> MatrixError:
    """The body is JSON, but not of the shape that the endpoint takes."""
    return MatrixError(status, "M_BAD_JSON", message)


def missing_param(message: str) -> MatrixError:
    """A required key or query parameter is missing."""
    return MatrixError(400, "M_MISSING_PARAM", message)


def invalid_param(message: str) -> MatrixError:
    """A parameter has a value that makes no sense here."""
    return MatrixError(400, "M_INVALID_PARAM", message)


def unknown_pos(message: str = "That position is not one of this server") -> MatrixError:
    """A token of a stream that this server never gave out."""
    return MatrixError(400, "M_UNKNOWN_POS", message)


def missing_token() -> MatrixError:
    """The endpoint needs an access token and got none."""
    return MatrixError(401, "M_MISSING_TOKEN", "An access token is needed")


def unknown_token(
    message: str = "The access token is not known", *, soft_logout: bool = False
) -> MatrixError:
    """The token was never issued or was revoked; with `soft_logout` its device still exists."""
    return MatrixError(401, "M_UNKNOWN_TOKEN", message, soft_logout=soft_logout)


def too_large(message: str) -> MatrixError:
    """An event or a file over the limit."""
    return MatrixError(413, "M_TOO_LARGE", message)


def user_limit_exceeded(message: str, info_uri: str) -> MatrixError:
    """The account would store more than its quota; `info_uri` is a page about that for people."""
    return MatrixError(403, "M_USER_LIMIT_EXCEEDED", message, info_uri=info_uri)


def profile_too_large(message: str) -> MatrixError:
    """The profile with the new field would be over its limit."""
    return MatrixError(400, "M_PROFILE_TOO_LARGE", message)


def key_too_large(message: str) -> MatrixError:
    """The name of a profile field is too long."""
    return MatrixError(400, "M_KEY_TOO_LARGE", message)


def limit_exceeded(retry_after_ms: int) -> MatrixError:
    """Too many requests; the handler adds the Retry-After header."""
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests", retry_after_ms=retry_after_ms)


def user_in_use(message: str = "This user name is taken") -> MatrixError:
    """Somebody has, or had, this user id."""
    return MatrixError(400, "M_USER_IN_USE", message)


def invalid_username(message: str) -> MatrixError:
    """The user name breaks the grammar of user ids."""
    return MatrixError(400, "M_INVALID_USERNAME", message)


def weak_password(message: str) -> MatrixError:
    """The password is too short."""
    return MatrixError(400, "M_WEAK_PASSWORD", message)


def user_deactivated() -> MatrixError:
    """The account was deactivated."""
    return MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")


def user_locked() -> MatrixError:
    """The account is locked by an administrator; clients keep their session."""
    return MatrixError(401, "M_USER_LOCKED", "This account is locked", soft_logout=True)


def user_suspended() -> MatrixError:
    """The account is suspended by an administrator: it may read, and leave."""
    return MatrixError(403, "M_USER_SUSPENDED", "You can't do this while you are suspended")


def cannot_leave_server_notice_room() -> MatrixError:
    """The server wants the user to read what it has to say."""
    message = "The invite to the server's notices can't be rejected"
    return MatrixError(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", message)


def threepid_denied(message: str) -> MatrixError:
    """The server does not want this e-mail address or telephone number."""
    return MatrixError(403, "M_THREEPID_DENIED", message)


def threepid_in_use(message: str = "This address belongs to another account") -> MatrixError:
    """Another account has this e-mail address."""
    return MatrixError(400, "M_THREEPID_IN_USE", message)


def threepid_auth_failed(message: str) -> MatrixError:
    """Whoever asks has not proved that the e-mail address is theirs."""
    return MatrixError(403, "M_THREEPID_AUTH_FAILED", message)


def threepid_not_found(message: str) -> MatrixError:
    """No account has this e-mail address or telephone number."""
    return MatrixError(400, "M_THREEPID_NOT_FOUND", message)


def room_in_use(message: str) -> MatrixError:
    """The alias is taken."""
    return MatrixError(400, "M_ROOM_IN_USE", message)


def alias_in_use(message: str) -> MatrixError:
    """The alias that is to be added points to a room already."""
    return MatrixError(409, "M_UNKNOWN", message)


def bad_alias(message: str) -> MatrixError:
    """m.room.canonical_alias names an alias that does not point to the room."""
    return MatrixError(400, "M_BAD_ALIAS", message)


def unsupported_room_version(version: str) -> MatrixError:
    """The server does not know this room version."""
    return MatrixError(
        400, "M_UNSUPPORTED_ROOM_VERSION", f"Room version {version!r} is not supported"
    )


def invalid_room_state(message: str) -> MatrixError:
    """The first events of a new room contradict each other."""
    return MatrixError(400, "M_INVALID_ROOM_STATE", message)


def duplicate_annotation() -> MatrixError:
    """The user has reacted to this event with the same key before."""
    return MatrixError(400, "M_DUPLICATE_ANNOTATION", "You have reacted to this event like that")


def invite_blocked(user_id: str) -> MatrixError:
    """The user wants no invites."""
    return MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not accept invites")


def server_not_trusted(message: str) -> MatrixError:
    """The request needs an identity server that this server has nothing to do with."""
    return MatrixError(400, "M_SERVER_NOT_TRUSTED", message)


def unknown_device(message: str) -> MatrixError:
    """The device that an application service names is none of the user's."""
    return MatrixError(400, "M_UNKNOWN_DEVICE", message)


def url_not_set() -> MatrixError:
    """The application service has no address: it wants no traffic."""
    return MatrixError(400, "M_URL_NOT_SET", "The registration of this service has no url")


def bad_status(status: int, body: str) -> MatrixError:
    """The application service answered, but not as it should."""
    message = f"The application service answered with status {status}"
    error = MatrixError(502, "M_BAD_STATUS", message)
    error.fields |= {"status": status, "body": body}  # its own status is another
    return error


def connection_failed(message: str) -> MatrixError:
    """The application service can't be reached."""
    return MatrixError(502, "M_CONNECTION_FAILED", message)


def connection_timeout() -> MatrixError:
    """The application service does not answer in time."""
    message = "The application service did not answer in time"
    return MatrixError(504, "M_CONNECTION_TIMEOUT", message)


def exclusive(message: str) -> MatrixError:
    """The name belongs to an application service."""
    return MatrixError(400, "M_EXCLUSIVE", message)


def not_yet_uploaded() -> MatrixError:
    """The media id exists, its content does not yet."""
    return MatrixError(504, "M_NOT_YET_UPLOADED", "The content has not been uploaded yet")


def cannot_overwrite_media() -> MatrixError:
    """The media id has its content already."""
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "This media id has content already")


def invalid_signature(message: str) -> MatrixError:
    """An uploaded key lacks a signature that it must have, or has a wrong one."""
    return MatrixError(400, "M_INVALID_SIGNATURE", message)


def wrong_room_keys_version(current_version: str) -> MatrixError:
    """Keys can only be added to the current version of a backup."""
    message = "That is not the current version of the backup"
    return MatrixError(403, "M_WRONG_ROOM_KEYS_VERSION", message, current_version=current_version)


def unknown(message: str, status: int = 400) -> MatrixError:
    """What no other errcode says."""
    return MatrixError(status, "M_UNKNOWN", message)


def unavailable(message: str = "The server cannot write at the moment") -> MatrixError:
    """The database is locked or the disk is full; nothing was changed."""
    return MatrixError(503, "M_UNKNOWN", message)
