"""Addresses for processes that meet: a free port, and the way to another machine.

    python src/run/network.py free-port            prints a free port of 127.0.0.1
    python src/run/network.py serve HOST PORT      on machine 0: checks that the port is free there
    python src/run/network.py reach HOST PORT      on the others: finds the way to machine 0

The last two print the network interface to use. Takes nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import sys

_SIOCGIFADDR = 0x8915


class NetworkError(RuntimeError):
    """An address cannot be used; the message says which and what to do."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serving_interface(host: str, port: int) -> str:
    """Return the interface that carries `host`, after checking that the port is free on it.

    Raises:
        NetworkError: when the address is not this machine's, or the port is taken.
    """
    address = _resolve(host)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise NetworkError(
                f"--main {host}:{port}: cannot listen there ({error.strerror}); on machine 0 give "
                "an address of its own that the others reach, and a port nobody uses"
            ) from None
    return _interface_of(address)


def reaching_interface(host: str, port: int) -> str:
    """Return the interface that leads to `host`.

    Raises:
        NetworkError: when there is no way to it.
    """
    address = _resolve(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))  # sends nothing; it only chooses a route
        except OSError as error:
            raise NetworkError(
                f"--main {host}:{port}: no way there ({error.strerror}); check the address"
            ) from None
        return _interface_of(probe.getsockname()[0])


def _resolve(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise NetworkError(f"--main {host}: no such machine ({error.strerror})") from None


def _interface_of(address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(query.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # this one has no address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    raise NetworkError(f"{address}: no network interface of this machine has this address")


def main(arguments: list[str]) -> None:
    """Answer one question of the launcher's."""
    try:
        if arguments == ["free-port"]:
            answer = str(free_port())
        else:
            question, host, port = arguments
            ask = {"serve": serving_interface, "reach": reaching_interface}[question]
            answer = ask(host, int(port))
    except NetworkError as error:
        sys.exit(f"launch_trl.sh: {error}")
    sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
