"""A connection with a single deadline, through a proxy if the environment sets one."""

from __future__ import annotations

import dataclasses
import http.client
import io
import ipaddress
import selectors
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy


class ResponseTooLong(Exception):
    """The receiver sends more than `Wire.MAX_RESPONSE` bytes."""


class Unreachable(Exception):
    """There is no connection. The message may be logged."""


class Wire:
    """A socket for `http.client` whose operations end at the deadline and whose responses have a size limit."""

    MAX_RESPONSE: Final = 64 * 1024  # bytes, with its headers

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.renew(deadline)

    def renew(self, deadline: float) -> None:
        """Start a new request that ends at `deadline` (on time.monotonic())."""
        self.deadline = deadline
        self.unread = self.MAX_RESPONSE

    def sendall(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            self.sock.settimeout(remaining(self.deadline))
            unsent = unsent[self.sock.send(unsent) :]

    def readable(self) -> bool:
        """Return whether there is something to read: a response or the end of the connection."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            return bool(selector.select(0))

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(WireReader(self))

    def close(self) -> None:
        self.sock.close()


class WireReader(io.RawIOBase):
    """Reads a response from a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.wire.unread <= 0:
            raise ResponseTooLong
        self.wire.sock.settimeout(remaining(self.wire.deadline))
        count = self.wire.sock.recv_into(buffer, min(len(buffer), self.wire.unread))
        self.wire.unread -= count
        return count


def remaining(deadline: float) -> float:
    """Return the seconds until `deadline`. Raises TimeoutError after it."""
    if (seconds := deadline - time.monotonic()) > 0:
        return seconds
    raise TimeoutError


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The proxy from HTTP_PROXY, HTTPS_PROXY or ALL_PROXY. `url` may contain a password."""

    url: str = dataclasses.field(repr=False)
    PORTS: ClassVar = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the proxy for `url`, by the rules of `requests`; None for this machine.

        Raises `Unreachable` if the proxy is not supported.
        """
        host = urlsplit(url).hostname or ""
        if is_loopback(host):
            return None
        proxy = select_proxy(url, get_environ_proxies(url, no_proxy=None))
        if not proxy:
            return None
        result = cls(proxy if "://" in proxy else f"http://{proxy}")
        try:
            if result.host and result.port:
                return result
        except (KeyError, ValueError):
            pass
        raise Unreachable(
            "the proxy's address is not supported. An example: http://proxy:3128; "
            "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        )

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        default, port = self.PORTS[self.scheme], urlsplit(self.url).port
        return default if port is None else port

    @property
    def forwards(self) -> bool:
        """Whether it is an HTTP proxy, which forwards requests without TLS itself."""
        return self.scheme == "http"

    @property
    def name(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://{urlsplit(self.url).netloc.rpartition('@')[2]}"

    def headers(self) -> dict[str, str]:
        parts = urlsplit(self.url)
        if not parts.username:
            return {}
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"proxy-authorization": "Basic " + b64encode(user.encode()).decode()}

    def connect(self, host: str, port: int, deadline: float, tunnel: bool) -> socket.socket:
        """Connect to the proxy and, with `tunnel`, through it to `host`. Raises `Unreachable`."""
        if not self.forwards:
            return self._connect_socks(host, port, deadline)
        try:
            sock = connect(self.host, self.port, deadline)
        except OSError:
            raise Unreachable(
                f"the proxy {self.name} does not accept connections. Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
            ) from None
        if tunnel:
            try:
                self._tunnel(sock, host, port, deadline)
            except BaseException:
                sock.close()
                raise
        return sock

    def _tunnel(self, sock: socket.socket, host: str, port: int, deadline: float) -> None:
        """https://www.rfc-editor.org/rfc/rfc9110#name-connect"""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}", *(f"{k}: {v}" for k, v in self.headers().items())]
        wire = Wire(sock, deadline)
        try:
            wire.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
            response = http.client.HTTPResponse(wire, method="CONNECT")  # type: ignore[arg-type]
            response.begin()
        except (OSError, http.client.HTTPException, ResponseTooLong):
            raise Unreachable(
                f"the proxy {self.name} does not respond like a proxy. Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
            ) from None
        if response.status != 200:
            raise Unreachable(f"the proxy {self.name} does not let it through ({response.status}). Check HTTPS_PROXY")

    def _connect_socks(self, host: str, port: int, deadline: float) -> socket.socket:
        try:
            import socks  # type: ignore[import-untyped]  # PySocks is optional
        except ImportError:
            raise Unreachable(
                f"the proxy {self.name} uses SOCKS, which needs the package PySocks. "
                "Install it, or add the receiver to NO_PROXY"
            ) from None
        parts = urlsplit(self.url)
        try:
            connected: socket.socket = socks.create_connection(
                (host, port),
                timeout=remaining(deadline),
                proxy_type=socks.SOCKS5 if parts.scheme.startswith("socks5") else socks.SOCKS4,
                proxy_addr=self.host,
                proxy_port=self.port,
                proxy_rdns=parts.scheme in ("socks5h", "socks4a"),
                proxy_username=unquote(parts.username) if parts.username else None,
                proxy_password=unquote(parts.password) if parts.password else None,
            )
        except OSError:  # includes PySocks' errors
            raise Unreachable(f"the proxy {self.name} did not connect. Check ALL_PROXY and NO_PROXY") from None
        return connected


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of `host` that accepts. Each address gets an equal share of the time."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        is_last = number == len(addresses) - 1
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining(deadline) / (len(addresses) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError:
            sock.close()
            if is_last:
                raise
    raise OSError("no address")


def open_wire(
    host: str, port: int, deadline: float, proxy: Proxy | None, tls: Callable[[], ssl.SSLContext] | None
) -> Any:
    """Open a wire to `host`, with TLS if `tls` is given. Raises OSError or `Unreachable`."""
    context = tls() if tls else None
    tunnel = context is not None
    sock = proxy.connect(host, port, deadline, tunnel) if proxy else connect(host, port, deadline)
    if context is None:
        return Wire(sock, deadline)
    try:
        sock.settimeout(remaining(deadline))  # for the complete handshake
        return Wire(context.wrap_socket(sock, server_hostname=host), deadline)
    except BaseException:
        sock.close()
        raise
