"""Certificates for tests of encrypted connections, made anew for each run."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


def write_certificates(folder: Path) -> Path:
    """Write PEM files into a folder, which is returned.

    ``certificate.pem`` and ``key.pem`` are localhost's, ``authority.pem`` is who signed for it;
    ``other_key.pem`` belongs to another certificate, ``encrypted_key.pem`` needs a password.
    """
    authority = trustme.CA()
    ours, other = (authority.issue_cert("localhost", "127.0.0.1") for _ in range(2))
    authority.cert_pem.write_to_path(folder / "authority.pem")
    ours.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    ours.private_key_pem.write_to_path(folder / "key.pem")
    other.private_key_pem.write_to_path(folder / "other_key.pem")
    key = load_pem_private_key(ours.private_key_pem.bytes(), password=None)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")
    )
    (folder / "encrypted_key.pem").write_bytes(encrypted)
    return folder
