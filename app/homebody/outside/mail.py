"""Mail that this server sends, through the mail server that the owner names in [smtp].

A message is handed over while its request waits, so that a client hears when that failed. Never
inside a write: the mail server may take its time. Under gevent the sockets of smtplib are
cooperative, as all are.

Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
"""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime, make_msgid, parseaddr
from typing import Final
from urllib.parse import urlsplit

from homebody.config.settings import Config
from homebody.config.tables import Smtp

TIMEOUT_SECONDS: Final = 20.0
"""For each answer of the mail server."""


class MailError(Exception):
    """The mail server could not be reached, or did not take the message; why, for the log."""


class RefusedError(MailError):
    """It will never take mail for this address: there is no such mailbox."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, both as plain text and as HTML."""

    subject: str
    text: str
    html: str


def send(config: Config, address: str, message: Message) -> None:
    """Hand a message to the mail server. Waits. Raises MailError, RefusedError."""
    composed = _compose(config, address, message)
    try:
        with _connect(config.smtp) as connection:
            connection.send_message(composed)
    except smtplib.SMTPRecipientsRefused as error:
        code, reason = next(iter(error.recipients.values()))
        # 4xx is "later": grey-listing, a full mailbox
        kind = RefusedError if code >= 500 else MailError
        raise kind(f"{code} {reason.decode(errors='replace')}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(str(error) or type(error).__name__) from error


def _connect(smtp: Smtp) -> smtplib.SMTP:
    """A connection that the mail server has let in."""
    if smtp.tls == "implicit":
        context = ssl.create_default_context()
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            smtp.host or "", smtp.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = smtplib.SMTP(smtp.host or "", smtp.port, timeout=TIMEOUT_SECONDS)
    try:
        if smtp.tls == "starttls":
            connection.starttls(context=ssl.create_default_context())
        if smtp.user is not None and smtp.password is not None:
            connection.login(smtp.user, smtp.password)
    except BaseException:
        connection.close()
        raise
    return connection


def _compose(config: Config, address: str, message: Message) -> EmailMessage:
    host = urlsplit(f"//{config.server_name}").hostname
    name, sender = parseaddr(config.smtp.from_address or f"no-reply@{host}")
    composed = EmailMessage()
    composed["From"] = Address(name, addr_spec=sender)
    composed["To"] = Address(addr_spec=address)
    composed["Subject"] = message.subject
    composed["Date"] = localtime()
    composed["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    composed["Auto-Submitted"] = "auto-generated"  # so that no holiday notice answers
    composed.set_content(message.text)
    composed.add_alternative(message.html, subtype="html")
    return composed
