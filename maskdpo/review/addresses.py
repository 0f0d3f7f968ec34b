"""The names by which browsers reach the page."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def as_address(host: str) -> IPv4Address | IPv6Address | None:
    """None: it is a name, not an address in numbers."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    address = as_address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def names_of(host: str) -> list[str]:
    """The names of a page that listens at ``host``, beside those of the loopback; the first one can be printed.

    No browser can open a host that stands for all addresses of the machine, so it has the names of the machine.
    """
    if is_loopback(host):
        return [host.lower()]
    own = [socket.gethostname().lower(), socket.getfqdn().lower()]
    address = as_address(host)
    return own if address and address.is_unspecified else [host.lower(), *own]


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
