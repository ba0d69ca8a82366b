"""Who is heard by the pages that commands serve, and where they listen.

A browser sends requests for every page that is open in it. So one that names another host (a name that was made to lead here) or another
origin (a page of somebody else's) is refused, and whoever is not on this machine needs a token that nobody can guess.
"""

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from trainables.record import RunError

HERE = "127.0.0.1"
NAMES = frozenset({HERE, "localhost", "::1"})  # of this machine, in the address of a browser on it; any port: a tunnel may end at another
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # an address may hold a token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HIGHEST = 65535  # port
TRIED = 100  # ports after one that is taken


@dataclass(frozen=True)
class Names:
    """By which names a server may be called."""

    names: frozenset[str] = NAMES
    addresses: bool = False  # any IP address as well: no name leads there that is not ours

    def own_host(self, host: str) -> bool:
        """Whether what a request calls the server, with or without a port, is a name of it."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or (self.addresses and _is_address(name))

    def own_page(self, host: str, origin: str | None, site: str | None) -> bool:
        """Whether a request comes from a page of this server's, or from no page, by its headers Host, Origin and Sec-Fetch-Site."""
        own = origin in (None, f"http://{host}", f"https://{host}")
        return self.own_host(host) and own and site in (None, "none", "same-origin")


def names_at(host: str) -> Names:
    """The names of a server that listens there."""
    if is_loopback(host):
        return Names()
    return Names(NAMES | {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}, addresses=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host in NAMES or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def same_token(token: str, given: str) -> bool:
    """Whether a token is the one; the time that this takes says nothing of how much of it is right."""
    return hmac.compare_digest(token.encode(), given.encode())


def listen(host: str, port: int) -> socket.socket:
    """What hears at an address. Raises: RunError where it is taken, with the next port that is free, or is none of this machine's.

    Args:
        port: 0: one that is free.
    """
    try:
        return _bound(host, port)
    except PermissionError:
        raise RunError(f"--port {port}: this user may not listen there; give one from 1024 on") from None
    except OSError as error:
        if not _is_free(host, 0):
            raise RunError(f"--host {host}: {error.strerror or error}; give an address of this machine, such as 0.0.0.0") from None
        free = next((one for one in range(port + 1, min(port + TRIED, HIGHEST) + 1) if _is_free(host, one)), 0)
        raise RunError(f"--port {port} is taken; give another: --port {free} is free") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind)
    try:
        # As otherwise the port stays taken for a minute after a server has ended.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError:
        found.close()
        raise
    return found


def _is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
