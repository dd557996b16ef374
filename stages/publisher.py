"""A publishing socket: one-part messages `topic NUL payload`, refused off this machine without keys.

ZeroMQ drops messages for a subscriber that is behind by `queue`; that, and nothing else, is what a slow one costs.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from engine.client import DEFAULT_URL
from engine.clock import NS_PER_S, now_ns
from engine.curve import load_key
from engine.errors import UserError

LINGER_MS = 300
"""How long the last messages may take to leave at the end."""
REBIND_S = 3.0
"""How long a restarted worker waits for its predecessor's port."""
MAX_INCOMING_BYTES = 65_536
"""Subscribers send their topics and nothing else."""
_MOST_AT_ONCE = 100


class PublishSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Section [publish]; `config.toml` says what each means, and its unit."""

    url: str = "auto"
    frames_url: str = "auto"
    format: Literal["json", "msgpack"] = "json"
    queue: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    frames_fps: Annotated[float, msgspec.Meta(gt=0, le=240)] = 15.0
    jpeg_quality: Annotated[int, msgspec.Meta(ge=10, le=100)] = 80
    server_key: str = ""
    client_keys: str = ""


def results_url(settings: PublishSettings) -> str:
    """Where results go; empty for nowhere. `auto` is decided by who knows the sources, and counts as nowhere here."""
    return "" if settings.url in ("auto", "off", "") else settings.url


def frames_url(settings: PublishSettings) -> str:
    """Where pictures go; empty for nowhere."""
    if settings.frames_url != "auto":
        return "" if settings.frames_url == "off" else settings.frames_url
    url = results_url(settings)
    port = re.fullmatch(r"(tcp://.*:)(\d+)", url)
    if port:
        return f"{port[1]}{int(port[2]) + 1}"
    return f"{url}-frames" if url.startswith("ipc://") else ""


def is_loopback(url: str) -> bool:
    """Whether nobody outside of this machine can reach the address."""
    if url.startswith(("ipc://", "inproc://")):
        return True
    match = re.fullmatch(r"tcp://\[?([^\]]*)\]?:[^:]+", url)
    if not match:
        return False
    try:
        return ipaddress.ip_address(match[1]).is_loopback
    except ValueError:
        return match[1] == "localhost"


class Publisher:
    """An XPUB socket that knows its subscriptions and counts each topic's messages."""

    def __init__(self, url: str, setting: str, settings: PublishSettings, *, queue: int, restarted: bool) -> None:
        """Bind; `setting` names the address in errors; `restarted`: a dead predecessor's port may stay taken a while.

        Raises UserError when the address is taken or wrong, when it is reachable from outside and there are no keys,
        or when the keys cannot be read.
        """
        self._check(url, setting)
        self.subscriptions: set[bytes] = set()
        self._sequences: dict[str, int] = {}
        self._context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self._socket = self._context.socket(zmq.XPUB)
        try:
            self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            self._socket.setsockopt(zmq.SNDHWM, queue)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_INCOMING_BYTES)
            self._socket.setsockopt(zmq.LINGER, LINGER_MS)
            self._socket.setsockopt(zmq.IPV6, "[" in url)
            self._secure(url, setting, settings)
            self._bind(url, setting, REBIND_S if restarted else 0.0)
        except BaseException:
            self.close()
            raise

    def new_subscriptions(self) -> list[bytes]:
        """Topics (prefixes) subscribed to since the last call, repeated ones too; updates `subscriptions`. Of a flood
        the rest waits for the next call."""
        fresh: list[bytes] = []
        for _ in range(_MOST_AT_ONCE):
            if not self._socket.poll(0):
                break
            message = self._socket.recv(zmq.NOBLOCK)
            assert isinstance(message, bytes)
            if message[:1] == b"\x01":
                fresh.append(message[1:])
                self.subscriptions.add(message[1:])
            elif message[:1] == b"\x00":
                self.subscriptions.discard(message[1:])
        return fresh

    def wanted(self, topic: str) -> bool:
        """Whether anybody subscribed to the topic."""
        name = topic.encode() + b"\0"
        return any(name[:length] in self.subscriptions for length in range(len(name) + 1))

    def next_sequence(self, topic: str) -> int:
        """Count a message of a topic; from 0."""
        number = self._sequences.get(topic, 0)
        self._sequences[topic] = number + 1
        return number

    def send(self, topic: str, payload: bytes) -> None:
        """Never blocks: a subscriber whose queue is full misses the message."""
        self._socket.send(topic.encode() + b"\0" + payload, zmq.NOBLOCK)

    def close(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()
        self._socket.close()
        self._context.term()

    @staticmethod
    def _check(url: str, setting: str) -> None:
        port = re.fullmatch(r"tcp://.+:(\d+)", url)
        # libzmq takes a port that is too large modulo 65536.
        if not (port and 0 < int(port[1]) < 65_536) and not re.match("ipc://.", url):
            raise UserError(f"{setting}: {url!r} is no address; write tcp://127.0.0.1:PORT with a port from 1 to 65535")

    def _secure(self, url: str, setting: str, settings: PublishSettings) -> None:
        if not (settings.server_key or settings.client_keys):
            if not is_loopback(url):
                raise UserError(
                    f"{setting}: {url} can be reached from other machines; set publish.server_key and "
                    f"publish.client_keys (CURVE keys), or use an address such as {DEFAULT_URL}"
                )
            return
        public, secret = load_server_key(settings.server_key)
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain="*", location=str(client_folder(settings.client_keys)))
        self._socket.curve_publickey = public
        self._socket.curve_secretkey = secret
        self._socket.curve_server = True

    def _bind(self, url: str, setting: str, retry_s: float) -> None:
        until = now_ns() + round(retry_s * NS_PER_S)
        while True:
            try:
                if _is_served(url):
                    raise zmq.ZMQError(errno.EADDRINUSE)
                self._socket.bind(url)
                return
            except zmq.ZMQError as error:
                if error.errno == errno.EADDRINUSE and now_ns() < until:
                    time.sleep(0.1)
                    continue
                if error.errno == errno.EADDRINUSE:
                    raise UserError(
                        f"{setting}: {url} is in use (is another arnis-stream running?); "
                        "choose another with --publish tcp://127.0.0.1:PORT, or --publish off"
                    ) from error
                advice = "write tcp://127.0.0.1:PORT"
                raise UserError(f"{setting}: cannot bind {url}: {error.strerror}; {advice}") from error


def _is_served(url: str) -> bool:
    """Whether a program that lives has that socket file: libzmq would remove it and put its own there."""
    if not url.startswith("ipc://") or not hasattr(socket, "AF_UNIX"):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(url.removeprefix("ipc://"))
        except OSError as error:
            return isinstance(error, BlockingIOError)  # it lives, and has not got round to us
    return True


def load_server_key(file: str) -> tuple[bytes, bytes]:
    """Public and secret key of a CURVE key file. Raises UserError when it is missing or holds no secret key."""
    if not file:
        raise UserError("publish.server_key is empty, but publish.client_keys is not: CURVE needs both")
    public, secret = load_key(Path(file), "publish.server_key")
    if secret is None:
        raise UserError(f"publish.server_key: {file} holds no secret key; give the *.key_secret file")
    return public, secret


def client_folder(folder: str) -> Path:
    """The folder of authorised public keys. Raises UserError when it is missing or holds none, or a damaged one, for
    which everybody would be shut out."""
    if not folder:
        raise UserError("publish.client_keys is empty, but publish.server_key is not: nobody could subscribe")
    files = sorted(Path(folder).glob("*.key"))
    if not files:
        raise UserError(f"publish.client_keys: no *.key file in {folder}; put the subscribers' public keys there")
    for file in files:
        load_key(file, "publish.client_keys")
    return Path(folder)
