"""Who speaks: eSpeak NG in process, by ctypes, and flite as a program. Both tell when each phoneme begins.

Debian's packages ``espeak-ng`` (GPL-3; what it speaks belongs to whoever lets it speak) and ``flite`` (as free as BSD,
with its voices). Neither is needed where streamfx runs.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfx.models.avatar.visemes import Segment, of_arpabet, of_ipa, segments

_PHONEME_EVENTS, _PHONEMES_IN_IPA, _DO_NOT_EXIT = 0x1, 0x2, 0x8000
_SYNCHRONOUS, _UTF8, _CHARACTERS = 2, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_PHONEME, _END_OF_LIST = 7, 0
_VOICELESS = tuple("ptkcqʔʈ")
_CLOSURE_S, _STEP_S = 0.11, 0.005
_SHORT_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Spoken:
    samples: NDArray[np.float32]
    rate: int
    segments: list[Segment]


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """One for a process: the library has one voice at a time."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        flags = _PHONEME_EVENTS | _PHONEMES_IN_IPA | _DO_NOT_EXIT
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, flags)
        if self.rate <= 0:
            raise OSError("eSpeak NG does not start; install Debian's espeak-ng")
        self._pieces: list[NDArray[np.int16]] = []
        self._phonemes: list[tuple[float, str]] = []
        self._callback = _Callback(self._take)  # kept, for the library calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, words_a_minute: int = 175, pitch: int = 50, pitch_range: int = 50) -> Spoken:
        """``voice`` as in ``en-us+f3``; pitches from 0 to 100. Raises ``ValueError`` if there is no such voice."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice}; see espeak-ng --voices")
        for parameter, value in ((_RATE, words_a_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._phonemes = [], []
        said = text.encode()
        self._library.espeak_Synth(said, len(said) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        samples = np.concatenate([*self._pieces, np.zeros(1, np.int16)]).astype(np.float32) / 32768
        return Spoken(samples, self.rate, self._segments(samples))

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        at = 0
        while events[at].type != _END_OF_LIST:
            event = events[at]
            if event.type == _PHONEME:
                raw = ctypes.string_at(ctypes.addressof(event) + _Event.id.offset, 8)
                self._phonemes.append((event.sample / self.rate, raw.split(b"\0")[0].decode(errors="ignore")))
            at += 1
        return 0

    def _segments(self, samples: NDArray[np.float32]) -> list[Segment]:
        # "(en)" is a change of language, no sound.
        heard = [(at, name) for at, name in self._phonemes if not name.startswith("(")]
        begins = closures(samples, self.rate, heard)
        ends = [*begins[1:], max(len(samples) / self.rate, begins[-1] if begins else 0.0)]
        phonemes = [(begin, end, name) for begin, end, (_, name) in zip(begins, ends, heard, strict=True)]
        return without_short_pauses(segments(phonemes, of_ipa))


def closures(samples: NDArray[np.float32], rate: int, phonemes: list[tuple[float, str]]) -> list[float]:
    """When each phoneme begins. eSpeak gives for a voiceless stop the time of its burst; the silence before belongs to
    it, and its begin is found in the signal."""
    step = int(_STEP_S * rate)
    steps = len(samples) // step
    loud = np.square(samples[: steps * step]).reshape(steps, step).mean(axis=1)
    still = loud < 10**-3.5 * loud.max(initial=0.0)
    found: list[float] = []
    for at, (time, name) in enumerate(phonemes):
        begin = time
        if name.startswith(_VOICELESS) and at:
            floor = found[-1] + 0.01 if phonemes[at - 1][1] else time - 0.06
            while begin - _STEP_S > max(floor, time - _CLOSURE_S) and still[min(int(begin / _STEP_S) - 1, steps - 1)]:
                begin -= _STEP_S
        found.append(max(begin, found[-1] if found else 0.0))
    return found


def without_short_pauses(spoken: list[Segment]) -> list[Segment]:
    """A mouth does not go to rest for a moment."""
    found: list[Segment] = []
    for begin, end, viseme in spoken:
        if viseme == "sil" and found and end - begin < _SHORT_PAUSE_S and found[-1][2] != "sil":
            found[-1] = (found[-1][0], end, found[-1][2])
        elif end > begin:
            found.append((begin, end, viseme))
    return found


@cache
def _flite(root: Path | None) -> tuple[str, dict[str, str]]:
    """The program, and where it finds its libraries if it is unpacked at ``root`` instead of installed."""
    if root is None:
        return "flite", dict(os.environ)
    libraries = next(root.rglob("libflite.so.1")).parent
    return str(root / "usr/bin/flite"), os.environ | {"LD_LIBRARY_PATH": str(libraries)}


def flite(text: str, voice: str, stretch: float = 1.0, pitch: float | None = None, root: Path | None = None) -> Spoken:
    """``stretch`` above 1 is slower, ``pitch`` in Hz. Raises ``OSError`` or ``CalledProcessError`` without flite."""
    program, environment = _flite(root)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "said.wav"
        command = [program, "-voice", voice, "-psdur", "--setf", f"duration_stretch={stretch}"]
        command += [] if pitch is None else ["--setf", f"int_f0_target_mean={pitch}"]
        said = subprocess.run(
            [*command, "-t", text, "-o", str(out)], env=environment, capture_output=True, text=True, check=True
        ).stdout
        with wave.open(str(out)) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    phonemes: list[tuple[float, float, str]] = []
    for item in said.split():
        name, _, end = item.rpartition(":")
        begin = phonemes[-1][1] if phonemes else 0.0
        # A new sentence's times begin at 0 again.
        if phonemes and float(end) < begin:
            raise ValueError("flite was given several sentences; give it one at a time")
        phonemes.append((begin, float(end), name))
    return Spoken(samples, rate, without_short_pauses(segments(phonemes, of_arpabet)))
