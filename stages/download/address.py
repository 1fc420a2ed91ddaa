"""From a listed URL to a connected socket: tidy URLs, refuse private addresses, remember dead hosts."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from stages.download.outcome import CONNECT, Failure, Reason, network_reason

# Everything RFC 3986 allows, and "%" because lists hold URLs that are already escaped.
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def request_url(listed: str) -> str:
    """A URL as it goes over the wire: spaces and non-ASCII escaped, an international host name in Punycode.

    Raises Failure (`invalid_url`, `forbidden_scheme`).
    """
    try:
        parts = urlsplit(listed.strip())
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise Failure(Reason.INVALID_URL) from error
    if parts.scheme not in ("http", "https"):
        raise Failure(Reason.FORBIDDEN_SCHEME)
    if not host or any(c.isspace() or not c.isprintable() for c in host):
        raise Failure(Reason.INVALID_URL)
    # A user and password in a URL are left out: urllib would take them for a part of the host name.
    place = f"[{host}]" if ":" in host else host
    netloc = place if port is None else f"{place}:{port}"
    return urlunsplit((parts.scheme, netloc, quote(parts.path, _SAFE), quote(parts.query, _SAFE), ""))


@lru_cache(maxsize=65_536)
def host_of(url: str) -> str:
    """Lower-case host name of a URL that :func:`request_url` made, without a final dot."""
    return (urlsplit(url).hostname or "").rstrip(".")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, IPv4 addresses inside IPv6 ones included."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:  # fec0::/10: long deprecated, routed by nobody but whoever still uses it
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and (ip in _NAT64 or int(ip) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class Allowed:
    """Hosts and networks that may be reached although they are private."""

    def __init__(self, entries: Collection[str]) -> None:
        """`entries`: host names, and networks in CIDR notation."""
        self._hosts = {entry.lower().rstrip(".").strip("[]") for entry in entries if "/" not in entry}
        self._networks = [ipaddress.ip_network(entry) for entry in entries if "/" in entry]

    def __call__(self, host: str, address: str) -> bool:
        """Whether `host`, which stands for the IP `address`, may be reached wherever that leads."""
        if host in self._hosts:
            return True
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(ip.version == network.version and ip in network for network in self._networks)


class Dialer:
    """Opens the sockets of one partition; shared by its threads.

    The address that was checked is the address that is connected to, so a name that resolves differently a second
    time gains nothing. Redirects come through here as well.
    """

    def __init__(self, served: Mapping[str, str], allow_private: Collection[str] = ()) -> None:
        """`served` maps host names to the ``ip:port`` that plays them on this machine."""
        self._served = {host.lower(): where for host, where in served.items()}
        self._allowed = Allowed(allow_private)
        self._lock = threading.Lock()
        self._resolved: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self._alive: set[str] = set()
        self._dead: dict[str, str] = {}

    def is_served(self, host: str) -> bool:
        """Whether a server on this machine plays the host."""
        return host in self._served

    def bury(self, failure: Failure) -> None:
        """Remember that all tries to connect to a host failed; whatever else it lists fails the same way at once.

        Does nothing for failures that may depend on the URL, or when the host ever accepted a connection.
        """
        with self._lock:
            if failure.status in CONNECT and failure.host not in self._alive:
                self._dead.setdefault(failure.host, failure.status)

    def death(self, host: str) -> str | None:
        """The status with which the host was given up, or None."""
        return self._dead.get(host)

    def connect(self, address: tuple[str, int], timeout: float, *_: Any) -> socket.socket:
        """A drop-in for `socket.create_connection`. Raises Failure."""
        host, port = address[0].lower().rstrip("."), address[1]
        if status := self._dead.get(host):
            raise Failure(status, host=host)
        try:
            sock = self._first(self._addresses(host, port), timeout)
        except (OSError, UnicodeError) as error:
            reason = network_reason(error, connecting=True)
            if reason is None:
                raise
            if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST:
                with self._lock:
                    self._dead.setdefault(host, reason)  # the answer of a name server, not the lack of one
            raise Failure(reason, host=host) from error
        with self._lock:
            self._alive.add(host)
        return sock

    def _first(self, addresses: list[tuple[str, int]], timeout: float) -> socket.socket:
        for place in addresses[:-1]:
            try:
                return socket.create_connection(place, timeout)
            except OSError:
                continue
        return socket.create_connection(addresses[-1], timeout)

    def _addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        if where := self._served.get(host):
            ip, _, mapped = where.rpartition(":")
            return [(ip, int(mapped))]
        if (host, port) not in self._resolved:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # Asked once per partition: lists name one host thousands of times, and name servers limit rates too.
            self._resolved[host, port] = [(str(info[4][0]), port) for info in found]
        places = [p for p in self._resolved[host, port] if is_public(p[0]) or self._allowed(host, p[0])]
        if not places:
            raise Failure(Reason.FORBIDDEN_ADDRESS, host=host)
        return places
