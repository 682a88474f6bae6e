"""E-mail addresses and telephone numbers: this server knows none, and says so.

Clients ask for them in their settings and when somebody has forgotten a password.

Spec: client-server-api#adding-account-administrative-contact-information
"""

from __future__ import annotations

from typing import NoReturn

from flask import Blueprint

from app import errors
from app.client_server import http
from app.spec.events import Json

bp = Blueprint("threepids", __name__)

SENTENCE = "This server keeps no e-mail addresses and telephone numbers"


@bp.get("/account/3pid")
@http.authenticated
def get_account_3pids() -> Json:
    """The contact information of the account: none.

    Spec: client-server-api#get_matrixclientv3account3pid
    """
    return {"threepids": []}


@bp.post("/account/3pid/email/requestToken")
@bp.post("/account/3pid/msisdn/requestToken")
@bp.post("/register/email/requestToken")
@bp.post("/register/msisdn/requestToken")
def request_token() -> NoReturn:
    """Raises M_THREEPID_DENIED: no e-mail and no message is sent.

    Spec: client-server-api#post_matrixclientv3registeremailrequesttoken,
    client-server-api#post_matrixclientv3account3pidemailrequesttoken
    """
    raise errors.threepid_denied(SENTENCE)


@bp.post("/account/password/email/requestToken")
@bp.post("/account/password/msisdn/requestToken")
def request_token_to_reset_password() -> NoReturn:
    """Raises M_THREEPID_NOT_FOUND: the owner sets new passwords by `homebody user passwd`.

    Spec: client-server-api#post_matrixclientv3accountpasswordemailrequesttoken
    """
    raise errors.threepid_not_found(SENTENCE)


@bp.post("/account/3pid")
@bp.post("/account/3pid/add")
@bp.post("/account/3pid/bind")
@http.authenticated
def add_3pid() -> NoReturn:
    """Raises M_THREEPID_DENIED.

    Spec: client-server-api#post_matrixclientv3account3pidadd
    """
    raise errors.threepid_denied(SENTENCE)


@bp.post("/account/3pid/delete")
@bp.post("/account/3pid/unbind")
@http.authenticated
def delete_3pid() -> NoReturn:
    """Raises M_THREEPID_NOT_FOUND.

    Spec: client-server-api#post_matrixclientv3account3piddelete
    """
    raise errors.threepid_not_found(SENTENCE)
