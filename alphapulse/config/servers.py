"""Where a server may listen."""

from __future__ import annotations

import ipaddress

from alphapulse.config.sections import ServerSettings
from alphapulse.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on the host."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def refuse_exposure(section: str, server: ServerSettings) -> None:
    """Refuse to listen beyond loopback without a token, unless the settings force it.

    Parameters
    ----------
    section : name of the server's section, for the message
    server : its settings

    Raises
    ------
    ConfigError
        naming the host and the three ways out
    """
    if server.token or server.allow_without_token or is_loopback(server.host):
        return
    raise ConfigError(
        f"{section}.host",
        f"{server.host!r} listens beyond this machine and {section}.token is empty; set a token, "
        f"listen on 127.0.0.1, or force it with {section}.allow_without_token = true",
    )
