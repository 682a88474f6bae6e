"""Send mail through the mail server of the setting [smtp].

A message is sent while its request waits, so that the client learns of errors; never inside a
write transaction, as mail servers may be slow.

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
"""For each response of the mail server."""


class MailError(Exception):
    """The mail server could not be reached or rejected the message; the text is for the log."""


class RefusedError(MailError):
    """The mail server rejects the address for good: the mailbox does not exist."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, as plain text and as HTML."""

    subject: str
    text: str
    html: str


def send(config: Config, address: str, message: Message) -> None:
    """Hand a message to the mail server, and wait for that. Raises MailError, RefusedError."""
    composed = _compose(config, address, message)
    try:
        with _connect(config.smtp, TIMEOUT_SECONDS) as connection:
            connection.send_message(composed)
    except smtplib.SMTPRecipientsRefused as error:
        code, reason = next(iter(error.recipients.values()))
        # 4xx is temporary: greylisting, a full mailbox
        kind = RefusedError if code >= 500 else MailError
        raise kind(f"{code} {reason.decode(errors='replace')}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(str(error) or type(error).__name__) from error


def check(config: Config, timeout_s: float) -> None:
    """Connect to the mail server and log in, without sending anything. Raises MailError."""
    try:
        with _connect(config.smtp, timeout_s) as connection:
            connection.ehlo_or_helo_if_needed()
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(str(error) or type(error).__name__) from error


def _connect(smtp: Smtp, timeout_s: float) -> smtplib.SMTP:
    """Connect to the mail server and log in."""
    if smtp.tls == "implicit":
        context = ssl.create_default_context()
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            smtp.host or "", smtp.port, timeout=timeout_s, context=context
        )
    else:
        connection = smtplib.SMTP(smtp.host or "", smtp.port, timeout=timeout_s)
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
    composed["Auto-Submitted"] = "auto-generated"  # against out-of-office replies
    composed.set_content(message.text)
    composed.add_alternative(message.html, subtype="html")
    return composed
