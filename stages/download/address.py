"""From a listed URL to a connected socket: refuses private addresses and remembers dead hosts."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Collection, Mapping
from typing import Any

from stages.download.outcome import CONNECT, Failure, Reason, network_reason

_NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is public; IPv4 addresses embedded in IPv6 ones are checked as well."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:  # fec0::/10: deprecated site-local addresses
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and (ip in _NAT64 or int(ip) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class AllowedHosts:
    """Hosts and networks to which connections are allowed although they are private."""

    def __init__(self, entries: Collection[str]) -> None:
        """`entries`: host names, and networks in CIDR notation."""
        self._hosts = {entry.lower().rstrip(".").strip("[]") for entry in entries if "/" not in entry}
        self._networks = [ipaddress.ip_network(entry) for entry in entries if "/" in entry]

    def __call__(self, host: str, address: str) -> bool:
        """Whether `host`, which resolves to the IP `address`, is allowed even if that address is private."""
        if host in self._hosts:
            return True
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(ip.version == network.version and ip in network for network in self._networks)


class Dialer:
    """Opens the sockets of one partition; shared by its threads.

    It connects to the very address that was checked, so a name that resolves differently the second time cannot evade
    the check (DNS rebinding). Redirects are dialled here as well.
    """

    def __init__(self, served: Mapping[str, str], allow_private: Collection[str] = ()) -> None:
        """`served` maps host names to the ``ip:port`` of a server on this machine that stands in for them."""
        self._served = {host.lower(): address for host, address in served.items()}
        self._allowed = AllowedHosts(allow_private)
        self._lock = threading.Lock()
        self._resolved: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self._alive: set[str] = set()
        self._dead: dict[str, str] = {}

    def is_served(self, host: str) -> bool:
        """Whether a server on this machine stands in for the host."""
        return host in self._served

    def mark_dead(self, failure: Failure) -> None:
        """Remember that all tries to connect to a host failed; its other URLs then fail the same way immediately.

        Does nothing for failures that may depend on the URL, or if the host ever accepted a connection.
        """
        with self._lock:
            if failure.status in CONNECT and failure.host not in self._alive:
                self._dead.setdefault(failure.host, failure.status)

    def dead_status(self, host: str) -> str | None:
        """The status with which the host was marked dead, or None."""
        return self._dead.get(host)

    def connect(self, address: tuple[str, int], timeout: float, *_: Any) -> socket.socket:
        """Replacement for `socket.create_connection`. Raises Failure."""
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
                    self._dead.setdefault(host, reason)  # a name server's answer, not the lack of one
            raise Failure(reason, host=host) from error
        with self._lock:
            self._alive.add(host)
        return sock

    def _first(self, addresses: list[tuple[str, int]], timeout: float) -> socket.socket:
        for address in addresses[:-1]:
            try:
                return socket.create_connection(address, timeout)
            except OSError:
                continue
        return socket.create_connection(addresses[-1], timeout)

    def _addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        if served := self._served.get(host):
            ip, _, mapped = served.rpartition(":")
            return [(ip, int(mapped))]
        if (host, port) not in self._resolved:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # Resolved once per partition: lists name one host thousands of times, and name servers limit rates too.
            self._resolved[host, port] = [(str(info[4][0]), port) for info in infos]
        allowed = [a for a in self._resolved[host, port] if is_public(a[0]) or self._allowed(host, a[0])]
        if not allowed:
            raise Failure(Reason.FORBIDDEN_ADDRESS, host=host)
        return allowed
