"""Kinds of sources behind `stages.capture`: cameras, video files, network streams, folders of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import numpy as np

from engine.ring import MAX_SIDE_PX

Allocate = Callable[[int, int], np.ndarray]
"""Gives a writable uint8 BGR array for a height and a width."""


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [capture]; `config.toml` says what each means, and its unit."""

    realtime: bool | Literal["auto"] = "auto"
    width: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)] = 1280
    height: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)] = 720
    fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 30.0
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 4.0
    retry_s: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.5
    longest_retry_s: Annotated[float, msgspec.Meta(ge=0.05, le=600)] = 8.0
    rtsp_transport: Literal["tcp", "udp"] = "tcp"


def redact_url(url: str) -> str:
    """A source's URL without user, password and query, for messages: `rtsp://***@host/path`. Some cameras want user
    and password in the path, `/user=admin&password=...`; and a password may have a slash that nobody has escaped."""
    if "://" not in url:
        return url  # a file's name
    without_user = re.sub(r"^([A-Za-z][\w+.-]*://)([^/?#]*|(?!\[)[^/?#:]*:(?!\d+[/?#]).*)@", r"\1***@", url)
    return re.sub(r"(\?|user\w*=|pass\w*=).*", r"\1***", without_user, flags=re.IGNORECASE)
