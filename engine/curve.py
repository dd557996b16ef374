"""Key files of CURVE, which keeps others from reading a socket."""

from __future__ import annotations

import struct
from pathlib import Path

import zmq.auth
from zmq.utils import z85

from engine.errors import UserError

_KEY_BYTES = 32


def load_key(file: Path, setting: str) -> tuple[bytes, bytes | None]:
    """Public key of a file and its secret one, None where it holds none; Z85 texts of 40 characters.

    Raises UserError, which names the setting, when the file is missing or damaged.
    """
    try:
        public, secret = zmq.auth.load_certificate(file)
        for key in (public, secret or public):
            if len(z85.decode(key)) != _KEY_BYTES:
                raise ValueError("a key has 40 characters")
    except (OSError, LookupError, ValueError, struct.error) as error:
        raise UserError(f"{setting}: cannot read a CURVE key from {file} ({error}); fetch or make it again") from error
    return public, secret
