"""Causes of TLS errors, read from the texts of those who raise them."""

import sqlite3
import ssl

import pytest
from requests import Response
from requests.exceptions import HTTPError
from sqlalchemy.exc import OperationalError

from handlers.openstack.errors import described
from messages.tls import TlsCause, innermost, is_cut_off, tls_cause_of
from workers.journal.database import journal_error, reason_of

TEXTS = {
    'server certificate for "db.example" does not match host name "localhost"': (
        TlsCause.WRONG_NAME
    ),
    "SSL error: certificate verify failed": TlsCause.UNKNOWN_CA,
    "SSL error: tlsv13 alert certificate required": TlsCause.CERTIFICATE_NEEDED,
    "FATAL:  connection requires a valid client certificate": TlsCause.CERTIFICATE_NEEDED,
    "SSL error: tlsv1 alert unknown ca": TlsCause.CERTIFICATE_REFUSED,
    "SSL error: sslv3 alert bad certificate": TlsCause.CERTIFICATE_REFUSED,
    "server does not support SSL, but SSL was required": TlsCause.NO_TLS,
    'no pg_hba.conf entry for host "::1", user "u", database "d", no encryption': (
        TlsCause.NEEDS_TLS
    ),
    "SSL error: tlsv1 alert protocol version": TlsCause.OLD_TLS,
    "400 No required SSL certificate was sent": TlsCause.CERTIFICATE_NEEDED,
    "You're speaking plain HTTP to an SSL-enabled server port.": TlsCause.NEEDS_TLS,
    "Client sent an HTTP request to an HTTPS server.": TlsCause.NEEDS_TLS,
    "SSL error: wrong cipher returned": TlsCause.OTHER,
    "FATAL:  password authentication failed for user": None,
    "SSL SYSCALL error: EOF detected": None,
    "[Errno 111] Connection refused": None,
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_cause_is_read(text: str) -> None:
    assert tls_cause_of(text) is TEXTS[text]


def test_a_connection_that_merely_ended_is_no_error_of_tls() -> None:
    ended = ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)")
    assert tls_cause_of(ended) is None
    assert is_cut_off(ended)


def test_the_innermost_reason_is_found_behind_what_libraries_put_around_it() -> None:
    quoted = "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
    outer = RuntimeError(f"Max retries exceeded (Caused by SSLError(SSLError(1, '{quoted}')))")
    assert innermost(outer) == "[SSL: WRONG_VERSION_NUMBER] wrong version number"


def answered(body: bytes) -> HTTPError:
    response = Response()
    response.status_code, response._content = 400, body
    response.url = "http://cloud.example:5000/v3"
    return HTTPError("Bad Request", response=response)


def test_what_a_proxy_says_counts_and_what_a_service_quotes_does_not() -> None:
    page = b"<html><body>The plain HTTP request was sent to HTTPS port</body></html>"
    detail, advice = described(answered(page))
    assert "cloud.example:5000" in detail
    assert "must begin with https:" in advice
    quoting = b'{"error": "The plain HTTP request was sent to HTTPS port: no such project"}'
    assert described(answered(quoting)) == ("HTTPError: Bad Request", "")


@pytest.mark.parametrize("text", ["database is locked", "SSL error: certificate verify failed"])
def test_an_error_of_sqlite_is_none_of_tls(text: str) -> None:
    error = OperationalError("INSERT", {}, sqlite3.OperationalError(text))
    assert reason_of(error) == text
    assert journal_error("the journal cannot be opened", error).advice == ""
