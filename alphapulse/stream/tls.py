"""The server's certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from alphapulse.config import StreamSettings
from alphapulse.errors import ConfigError


def server_context(settings: StreamSettings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None without a certificate in the settings.

    Raises
    ------
    ConfigError
        a file can't be read, isn't what it should be, or the key isn't the certificate's
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if not certificate:
        if key:
            raise ConfigError("stream.tls_key", "there is a key, but no stream.tls_certificate")
        return None
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        if path:
            _check_readable(f"stream.{name}", path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key or None, password=_no_password)
    except ssl.SSLError as error:
        where = f"{certificate!r} and {key!r}" if key else f"{certificate!r}"
        raise ConfigError(
            "stream.tls_certificate",
            f"{where} can't be used: {_reason(error)}; PEM files of a certificate and of its "
            "private key, which isn't encrypted, are needed",
        ) from None
    return context


def _check_readable(key: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(key, f"{path!r} can't be read: {error.strerror}") from None


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")


def _reason(error: ssl.SSLError) -> str:
    known = {
        "KEY_VALUES_MISMATCH": "the key is another certificate's",
        "PEM_LIB": "it isn't in PEM format, or holds no key",
        "NO_START_LINE": "it isn't in PEM format",
    }
    return known.get(getattr(error, "reason", "") or "", str(error.args[-1]))
