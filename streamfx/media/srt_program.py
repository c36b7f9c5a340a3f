"""SRT by FFmpeg's program, where the FFmpeg in PyAV is built without it: a child that passes MPEG-TS on as it is.

What is secret is not among its arguments, which everybody on the machine can read: for reading it stands in a list of
FFmpeg's ``concat`` format on its standard input, for writing in a preset file that is a pipe.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import IO

_QUIET = ("-hide_banner", "-nostats")
_LACKING = (
    "SRT needs FFmpeg's program, version 5 or later and built with libsrt: install it, as with apt install ffmpeg "
    "(`ffmpeg -protocols` is to list srt)"
)
_TELLING = (
    ("incorrect passphrase", "the passphrase is not the other end's"),
    ("badsecret", "the passphrase is not the other end's"),
    ("unsecure", "one end has a passphrase and the other has none"),
    ("timed out", "nobody answered"),
    ("timeout", "nobody answered"),
    ("address already in use", "another program uses the port"),
    ("connection rejected", "the other end refused the connection"),
    ("connection to srt", "the connection was not made; check the address, and that the other end is there"),
)
_CONNECTED = "Output #0"
"""What it says once it is connected."""
_NOTHING = b"\x47\x1f\xff\x10" + bytes([0xFF]) * 184
"""An MPEG-TS packet that says nothing: it wants something to read before it connects."""
_LINES = 30
_END_TIMEOUT = 2.0
_USUAL_LATENCY = 120_000
"""Microseconds; SRT's own."""
_ROUND_TRIP = 0.2
_LOOK_EVERY = 0.5


class NoProgramError(Exception):
    """There is nothing here that speaks SRT; the sentence says what to install."""


class SrtProgram:
    """At most one running program; ``end`` it on every path."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: deque[str] = deque(maxlen=_LINES)
        self._listener: threading.Thread | None = None
        self._news = threading.Event()
        self._connected = False
        self._latency = 0.0

    def read(self, place: str, options: Mapping[str, str]) -> IO[bytes]:
        """The MPEG-TS that comes from ``place``, with FFmpeg's options for it. Raises ``NoProgramError``."""
        process = self._start(
            "-loglevel", "error", "-f", "concat", "-safe", "0", "-protocol_whitelist", "pipe,srt", "-i", "pipe:0",
            "-map", "0", "-c", "copy", "-f", "mpegts", "-muxdelay", "0", "-muxpreload", "0", "-flush_packets", "1",
            "pipe:1", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        lines = ["ffconcat version 1.0", f"file {_quoted(place)}"]
        lines += [f"option {name} {_quoted(value)}" for name, value in options.items()]
        assert process.stdin is not None
        assert process.stdout is not None
        # What it died of, if so, is read from what it said.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\n".join([*lines, ""]).encode())
            process.stdin.close()
        return process.stdout

    def write(self, place: str, options: Mapping[str, str]) -> int:
        """The file descriptor that takes MPEG-TS for ``place``, once there is a connection. Raises ``NoProgramError``,
        and ``OSError`` with the reason if there is none."""
        self._latency = int(options.get("latency", _USUAL_LATENCY)) / 1e6
        names = {"streamid": "srt_streamid"}  # the program has another option of that name
        text = "".join(f"{names.get(name, name)}={value}\n" for name, value in options.items())
        preset, ours = os.pipe()
        try:
            with open(ours, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(text.encode())
            # Full packets only, as they come from the muxer: FFmpeg's own would be read and written anew.
            process = self._start(
                "-loglevel", "info", "-f", "data", "-i", "pipe:0", "-map", "0", "-c", "copy", "-f", "data",
                "-flush_packets", "0", "-fpre", f"/dev/fd/{preset}", place,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(preset,),
            )  # fmt: skip
        finally:
            os.close(preset)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(_NOTHING * 7)
        self._news.wait()
        if not self._connected:
            raise OSError(self.last_words or "the connection was not made")
        return process.stdin.fileno()

    def _start(
        self, *arguments: str, stdin: int, stdout: int, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        name = shutil.which("ffmpeg")
        if name is None:
            raise NoProgramError(_LACKING)
        try:
            listing = subprocess.run([name, *_QUIET, "-protocols"], capture_output=True, check=False, timeout=10)
        except subprocess.TimeoutExpired:
            raise OSError("FFmpeg's program does not answer") from None
        if b"srt" not in listing.stdout.split():
            raise NoProgramError(_LACKING)
        self._process = process = subprocess.Popen(
            [name, *_QUIET, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=pass_fds,
        )
        self._listener = threading.Thread(target=self._listen, args=(process,), name="ffmpeg says", daemon=True)
        self._listener.start()
        threading.Thread(target=_end_with_parent, args=(process,), name="ffmpeg ends", daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                text = line.decode(errors="replace").strip()
                self._said.append(text)
                if text.startswith(_CONNECTED):
                    self._connected = True
                    self._news.set()
        self._news.set()

    @property
    def last_words(self) -> str:
        """Why it ended, as far as it said so; an empty string if it said nothing."""
        if self._listener is not None:
            self._listener.join(0.3)
        said = list(self._said)
        for sign, sentence in _TELLING:
            if any(sign in line.lower() for line in said):
                return sentence
        if self._connected:
            return "the other end is gone" if self._process and self._process.poll() is not None else ""
        return "" if not said else re.sub(r"^\[[^]]*\] ", "", said[-1])

    def finish(self, timeout: float) -> None:
        """Lets it send what it was given, for about ``timeout`` seconds at most."""
        process = self._process
        if process is None or process.stdin is None:
            return
        # It keeps what does not fill a packet, and SRT drops at its end what has not been delivered.
        process.stdin.write(_NOTHING * 7)
        time.sleep(min(timeout, self._latency + _ROUND_TRIP))
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)

    def end(self) -> None:
        """It is gone and reaped afterwards."""
        process = self._process
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait(_END_TIMEOUT)


def _end_with_parent(process: subprocess.Popen[bytes]) -> None:
    """Who waits for a caller would do so for ever after a crash of the stream."""
    parent = os.getppid()
    while process.poll() is None:
        if os.getppid() != parent:
            process.kill()
        time.sleep(_LOOK_EVERY)


def _quoted(text: str) -> str:
    """As FFmpeg's lists quote."""
    return "'" + text.replace("'", "'\\''") + "'"
