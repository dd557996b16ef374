"""Subscribes to what a running program publishes.

    from engine.client import subscribe

    for message in subscribe(topics=["result", "health"]):
        print(message.topic, message.payload)

A message on the wire is one part: topic, a NUL byte, payload. The payload is a JSON object or a MessagePack map with
the topic's `sequence`, or raw data (a picture).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from engine.curve import load_key
from engine.errors import UserError

DEFAULT_URL = "tcp://127.0.0.1:5570"
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_HEARTBEAT_MS = 2000
_DEAD_AFTER_MS = 6000


class Message(msgspec.Struct, frozen=True):
    """One message of one topic."""

    topic: str
    """For example `result.0` or `health`."""
    payload: dict[str, Any]
    """Empty when the data is no object."""
    data: bytes
    """The payload as it came."""
    missed: int
    """How many messages of this topic were lost just before this one, because this reader was slow; always 0 for
    `frame.<stream>`, whose count lies in the picture."""


def subscribe(
    url: str = DEFAULT_URL,
    topics: Sequence[str] = ("result",),
    *,
    timeout_s: float | None = None,
    queue: int = 1000,
    server_key: Path | None = None,
    client_key: Path | None = None,
) -> Generator[Message]:
    """Yield the messages of all topics that begin with one of `topics`, as long as they come.

    The publisher may start later or be restarted: the connection is made again. `queue` messages wait for a slow
    reader at most. Off this machine, `server_key` is the file with the publisher's public CURVE key and `client_key`
    the file with this reader's secret one.
    Raises TimeoutError when nothing came for `timeout_s`, UserError at once when the address or a key file is wrong.
    """
    if isinstance(topics, str):
        topics = (topics,)
    if not topics:
        raise UserError('no topic is given, so nothing would come; "" stands for all')
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        # Otherwise a publisher whose machine vanished would never be missed, nor connected to again.
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
        _set_keys(socket, server_key, client_key)
        for topic in topics:
            socket.subscribe(topic.encode())
        _connect(socket, url)
    except BaseException:
        context.destroy()
        raise
    return _messages(context, socket, url, timeout_s)


def _messages(
    context: zmq.Context[Any], socket: zmq.Socket[Any], url: str, timeout_s: float | None
) -> Generator[Message]:
    expected: dict[str, int] = {}
    try:
        while True:
            if not socket.poll(None if timeout_s is None else int(timeout_s * 1000)):
                raise TimeoutError(f"nothing came from {url} for {timeout_s} s")
            topic_bytes, _, data = socket.recv().partition(b"\0")
            topic = topic_bytes.decode(errors="replace")
            payload = decode_payload(data)
            sequence = payload.get("sequence")
            missed = 0
            if isinstance(sequence, int):
                # A number below the expected one: the program was started anew.
                missed = max(0, sequence - expected.get(topic, sequence))
                expected[topic] = sequence + 1
            yield Message(topic, payload, data, missed)
    finally:
        context.destroy()


def decode_payload(data: bytes) -> dict[str, Any]:
    """The object in a payload, whichever of both encodings it has; empty when it is none."""
    decode = msgspec.json.decode if data[:1] == b"{" else msgspec.msgpack.decode
    try:
        return decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return {}


def _connect(socket: zmq.Socket[Any], url: str) -> None:
    tcp = re.fullmatch(r"tcp://[^/\s]+:(\d{1,5})", url)
    if not (tcp and int(tcp[1]) < 65536 or re.fullmatch(r"ipc://.+", url)):
        raise UserError(f"{url!r} is no address to subscribe to: write tcp://HOST:PORT, for example {DEFAULT_URL}")
    try:
        socket.setsockopt(zmq.IPV6, "[" in url)
        socket.connect(url)
    except zmq.ZMQError as error:
        raise UserError(f"cannot subscribe to {url}: {error.strerror}") from error


def _set_keys(socket: zmq.Socket[Any], server_key: Path | None, client_key: Path | None) -> None:
    if server_key is None and client_key is None:
        return
    if server_key is None or client_key is None:
        raise UserError("CURVE needs both: the publisher's public key file and this reader's secret key file")
    socket.curve_serverkey, _ = load_key(server_key, "the publisher's public key")
    socket.curve_publickey, secret = load_key(client_key, "this reader's secret key")
    if secret is None:
        raise UserError(f"{client_key} holds no secret key: name the *.key_secret file")
    socket.curve_secretkey = secret
