"""The one error of the RTMP library's own."""

from __future__ import annotations

from streamfx.core.errors import StreamFXError


class RtmpProtocolError(StreamFXError):
    """The peer sent bytes that RTMP, AMF0 or FLV do not allow, or more than the limits allow.

    The sentence never holds a stream key, so it may be logged and shown.
    """
