"""Visemes: which mouth belongs to which sound, and how mouths run into each other.

The fifteen are those of Meta's (Oculus) lip sync, which come down from the fourteen visemes and rest of MPEG-4's face
animation. Phonemes on a time line become rows of mouth coefficients by coarticulation after Cohen and Massaro (1993):
every segment pulls each coefficient to its own target, by a dominance that falls off exponentially to both sides, and
the row is their weighted mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamfx.models.avatar.coefficients import FPS, MOUTH

VISEMES = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
"""Silence; consonants by where they are made; vowels by the shape of the lips."""

SIL = VISEMES.index("sil")
PP = VISEMES.index("PP")

Segment = tuple[float, float, str]
"""Begin and end in seconds, and the viseme's name."""

_TABLE = (
    # jaw_open, lips_wide, lips_round, lips_press, lip_tuck, tongue_up, teeth
    ("sil", (0.00, 0.00, 0.00, 0.0, 0.0, 0.00, 0.00)),
    ("PP", (0.04, 0.00, 0.00, 1.0, 0.0, 0.00, 0.00)),
    ("FF", (0.12, 0.10, 0.00, 0.0, 1.0, 0.00, 0.15)),
    ("TH", (0.20, 0.12, 0.00, 0.0, 0.0, 1.00, 0.20)),
    ("DD", (0.18, 0.15, 0.00, 0.0, 0.0, 0.70, 0.40)),
    ("kk", (0.25, 0.10, 0.00, 0.0, 0.0, 0.00, 0.15)),
    ("CH", (0.14, 0.00, 0.60, 0.0, 0.0, 0.15, 0.90)),
    ("SS", (0.08, 0.40, 0.00, 0.0, 0.0, 0.15, 1.00)),
    ("nn", (0.22, 0.12, 0.00, 0.0, 0.0, 0.90, 0.20)),
    ("RR", (0.22, 0.00, 0.45, 0.0, 0.0, 0.25, 0.20)),
    ("aa", (0.90, 0.15, 0.00, 0.0, 0.0, 0.00, 0.05)),
    ("E", (0.50, 0.45, 0.00, 0.0, 0.0, 0.00, 0.15)),
    ("ih", (0.28, 0.75, 0.00, 0.0, 0.0, 0.10, 0.30)),
    ("oh", (0.55, 0.00, 0.60, 0.0, 0.0, 0.00, 0.00)),
    ("ou", (0.25, 0.00, 1.00, 0.0, 0.0, 0.00, 0.00)),
)
TARGETS: NDArray[np.float32] = np.array([target for _, target in _TABLE], np.float32)
"""``(15, 7)``: what each viseme wants of each coefficient, in the orders of ``VISEMES`` and ``MOUTH``."""

_IMPOSES: dict[str, dict[str, float]] = {
    "sil": {"jaw_open": 1.5, "teeth": 1.5},
    "PP": {"jaw_open": 4.0, "lips_press": 8.0, "lip_tuck": 4.0, "teeth": 3.0, "lips_wide": 0.4, "lips_round": 0.3},
    "FF": {"jaw_open": 3.0, "lip_tuck": 8.0, "lips_press": 4.0, "teeth": 1.5, "lips_wide": 0.6, "lips_round": 0.8},
    "TH": {"jaw_open": 1.2, "tongue_up": 5.0, "teeth": 1.5, "lips_wide": 0.4, "lips_round": 0.3},
    "DD": {"jaw_open": 1.2, "tongue_up": 4.0, "teeth": 1.5, "lips_wide": 0.3, "lips_round": 0.3},
    "kk": {"jaw_open": 0.5, "tongue_up": 1.5, "teeth": 0.8, "lips_wide": 0.2, "lips_round": 0.2},
    "CH": {"jaw_open": 3.0, "lips_round": 1.5, "lips_wide": 1.5, "teeth": 6.0},
    "SS": {"jaw_open": 4.0, "lips_wide": 0.6, "lips_round": 0.4, "teeth": 6.0},
    "nn": {"jaw_open": 0.8, "tongue_up": 4.0, "lips_wide": 0.3, "lips_round": 0.3},
    "RR": {"jaw_open": 0.8, "lips_round": 0.8, "lips_wide": 0.6},
    "oh": {"lips_round": 1.5, "lips_wide": 1.5},
    "ou": {"lips_round": 3.0, "lips_wide": 3.0},
}
"""Where the dominance is not 1. Shut lips and a tucked lip bear no compromise; what the lips do at ``k``, ``t``, ``n``
is left to the vowels beside them; a jaw that is wide open cannot hiss."""

DOMINANCE: NDArray[np.float32] = np.array(
    [[_IMPOSES.get(viseme, {}).get(name, 1.0) for name in MOUTH] for viseme in VISEMES], np.float32
)
"""``(15, 7)``: how strongly a viseme imposes each coefficient, in the middle of its segment."""

_FALL = np.array([38.0, 32.0, 22.0, 90.0, 80.0, 50.0, 55.0], np.float64)
"""How fast dominance falls beside a segment's core, 1/s: the lips round long before and after, but shut sharply."""

_LEAD_S = np.array([0.03, 0.03, 0.05, 0.01, 0.01, 0.02, 0.01], np.float64)
"""By how much each coefficient goes before the sound, as the jaw and rounding lips of a speaker do."""

_CORE, _EDGE_S = 0.55, 0.06
"""A segment's dominance is full in this share of it, and in all of a long one but its edges."""

_LEAST_CORE_S = 0.0215
"""Half of the shortest core of a closure: no closure falls between two rows."""

_IPA = {
    "PP": "pbmɓʙɸβ",
    "FF": "fvɱʋ",
    "TH": "θð",
    "DD": "tdʈɖɗɾʦʣ",
    "kk": "kɡgqɢxɣχhɦħʕŋɴʔcɟçʝʁʀɰ",
    "CH": "ʃʒʂʐɕʑʧʤɧ",
    "SS": "sz",
    "nn": "nlɲʎɭɳɫɬʟɮ",
    "RR": "rɹɻɽɚɝ",
    "aa": "aɑɐæʌɶ",
    "E": "eɛəɜɘɞɤ",
    "ih": "iɪɨjɯ",
    "oh": "oɔɒøœɵ",
    "ou": "uʊʉwyʏɥʍ",
}
_OF_LETTER = {letter: viseme for viseme, letters in _IPA.items() for letter in letters}
_AFFRICATE_ENDS = frozenset("ʃʒʂʐɕʑ")

_OF_ARPABET = {
    name: tuple(visemes.split())
    for visemes, names in {
        "sil": "SIL PAU SP BRTH SSIL",
        "PP": "P B M EM",
        "FF": "F V",
        "TH": "TH DH",
        "DD": "T D DX",
        "kk": "K G HH HV NG Q",
        "CH": "CH JH SH ZH",
        "SS": "S Z",
        "nn": "N L EN EL NX",
        "RR": "R ER AXR",
        "aa": "AA AE AH",
        "E": "EH AX",
        "ih": "IH IY IX Y",
        "oh": "AO",
        "ou": "UH UW W UX",
        "E ih": "EY",
        "aa ih": "AY",
        "aa ou": "AW",
        "oh ou": "OW",
        "oh ih": "OY",
    }.items()
    for name in names.split()
}


def of_ipa(phoneme: str) -> tuple[str, ...]:
    """The visemes of a phoneme in IPA as eSpeak NG gives it, one after the other (diphthongs have two). None for what
    is no sound: stress, length, tones. An empty phoneme is a pause: ``sil``."""
    if not phoneme:
        return ("sil",)
    found: list[str] = []
    for at, letter in enumerate(phoneme):
        if letter in "td" and phoneme[at + 1 : at + 2] and phoneme[at + 1] in _AFFRICATE_ENDS:
            continue  # the lips of an affricate are those of its end from the beginning
        viseme = _OF_LETTER.get(letter)
        if viseme is not None and found[-1:] != [viseme]:
            found.append(viseme)
    return tuple(found)


def of_arpabet(phoneme: str) -> tuple[str, ...]:
    """The visemes of an ARPAbet phoneme, whatever its case and stress. Unknown ones and noises (``+SPN+``): ``sil``."""
    return _OF_ARPABET.get(phoneme.upper().rstrip("012"), ("sil",))


def segments(
    phonemes: Iterable[tuple[float, float, str]], visemes_of: Callable[[str], tuple[str, ...]]
) -> list[Segment]:
    """Phonemes (begin and end in seconds, name) as segments of visemes; a phoneme's visemes share its time evenly. What
    has no viseme goes to the segment before."""
    found: list[Segment] = []
    for begin, end, name in phonemes:
        visemes = visemes_of(name)
        if not visemes and found:
            found[-1] = (found[-1][0], end, found[-1][2])
        for at, viseme in enumerate(visemes):
            share = (end - begin) / len(visemes)
            found.append((begin + at * share, begin + (at + 1) * share, viseme))
    return found


def labels(phonemes: Sequence[Segment], duration: float) -> NDArray[np.int64]:
    """The viseme at each row's time, ``(N,)`` at 25 rows a second; ``sil`` where there is no segment."""
    rows = np.full(_count(duration), SIL, np.int64)
    for begin, end, viseme in phonemes:
        first, last = (max(0, int(np.ceil(at * FPS - 0.5 - 1e-6))) for at in (begin, end))
        rows[first:last] = VISEMES.index(viseme)
    return rows


def trajectories(phonemes: Sequence[Segment], duration: float) -> NDArray[np.float32]:
    """How the mouth moves, ``(N, 7)`` in ``MOUTH``'s order in [0, 1]; row k stands at (k + 0.5) / 25 s, N is the number
    of rows that begin within ``duration`` seconds. The mouth rests where there is no segment.

    Raises ``ValueError`` if a viseme is unknown or segments are not one after the other.
    """
    filled = _filled(phonemes, duration)
    begins, ends = (np.array([segment[side] for segment in filled]) for side in (0, 1))
    kinds = np.array([VISEMES.index(segment[2]) for segment in filled])
    closes = DOMINANCE[kinds].max(axis=1) >= 8
    half = (ends - begins) / 2
    core = np.maximum(_CORE * half, half - _EDGE_S)
    core = np.where(closes, np.maximum(core, _LEAST_CORE_S), core)
    times = (np.arange(_count(duration)) + 0.5) / FPS
    rows = np.empty((len(times), len(MOUTH)))
    for at in range(len(MOUTH)):
        distance = np.abs((times + _LEAD_S[at])[:, None] - (begins + half)) - core
        pull = DOMINANCE[kinds, at] * np.exp(-_FALL[at] * np.maximum(distance, 0.0)) + 1e-12
        rows[:, at] = pull @ TARGETS[kinds, at] / pull.sum(axis=1)
    rows[:, 0] *= 1 - 0.75 * rows[:, MOUTH.index("lips_press")]  # lips that are shut hold the jaw
    return rows.astype(np.float32)


def _count(duration: float) -> int:
    return max(1, int(np.ceil(round(duration * FPS, 6))))


def _filled(phonemes: Sequence[Segment], duration: float) -> list[Segment]:
    """The segments, with rest before, between and after them."""
    found: list[Segment] = []
    at = -1.0
    for begin, end, viseme in phonemes:
        if viseme not in VISEMES:
            raise ValueError(f"{viseme!r} is no viseme; take one of {', '.join(VISEMES)}")
        if begin < at - 1e-6 or end < begin:
            raise ValueError(f"the segment at {begin:.3f} s begins before the last one's end; sort them")
        if begin > at:
            found.append((at, begin, "sil"))
        found.append((begin, end, viseme))
        at = end
    found.append((at, max(at, duration) + 1.0, "sil"))
    return found
