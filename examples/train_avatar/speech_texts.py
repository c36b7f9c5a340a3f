"""What is said: sentences of words drawn by chance, from Debian's word lists and common words of each language."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

LISTS = {"en": "american-english", "de": "ngerman", "fr": "french", "es": "spanish", "it": "italian"}
"""Of Debian's wamerican, wngerman, wfrench, wspanish, witalian."""

HELD_OUT_SHARE = 20
"""Every twentieth word is for evaluation alone."""

_COMMON = {
    "en": "the of and to a in is you that it he was for on are with as I his they be at one have this from or had by "
    "but what some we can out other were all there when up use your how said an each she which do their time "
    "if will way about many then them would like so these her long make thing see him two has look more day "
    "could go come did my sound no most people over know water than call first who may down side been now find "
    "well maybe people problem",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er "
    "hat dass sie nach wird bei einer um am sind noch wie einem über so zum war haben nur oder aber vor zur "
    "bis mehr",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec ils "
    "mais comme ou si leur elle nous vous tout bien peut aussi bon jour beaucoup parce moi petit",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más pero sus le ya o fue este "
    "ha sí porque esta son entre cuando muy sin sobre también me hasta hay donde bueno mamá poco",
    "it": "di che e la il un a per in una sono mi si ho non ma ti lo ha cosa le con no da i come se io questo qui "
    "bene tu sei del tutto mio per me anche perché lui più molto bambino papà poi",
    "nl": "de van een het en in is dat op te zijn met voor niet die aan er om dan zou wat mijn men dit zo door over "
    "bij ook tot je mij uit der daar naar heb hoe heeft hebben deze moeder boven bezig probleem",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas foi ao ele das tem seu sua "
    "ou ser quando muito há nos já está eu também só pelo pela até isso bom boa mãe",
    "pl": "w i na z do się nie to jest o że po jak za od przez przy dla ale czy przed być tak może tylko co już jego "
    "go pod był bardzo mama babcia proszę dobrze",
    "ru": "и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой весь год от так о "
    "для ты же все тот мочь вы человек такой его сказать мама папа большой были",
}
_SOUNDS = {
    "ru": ("б в г д ж з к л м н п р с т ф х ц ч ш ст пр бр", "а о у ы и е я ю э"),
    "": ("b d f g k l m n p r s t v w z br pl st tr", "a e i o u ai ou ei"),
}
_PUNCTUATION = (".", ".", ".", "?", "!", ",", ";", ":")


@cache
def words(folder: Path, language: str, held_out: bool) -> tuple[str, ...]:
    """The list of a language, without its every twentieth word or those alone; empty where there is no list."""
    if language not in LISTS:
        return ()
    lines = (folder / LISTS[language]).read_text(encoding="utf-8").split()
    fit = [word for word in lines if len(word) <= 14 and "'" not in word]
    return tuple(word for at, word in enumerate(fit) if (at % HELD_OUT_SHARE == 0) == held_out)


def sentence(draw: np.random.Generator, folder: Path, language: str, held_out: bool = False, most: int = 16) -> str:
    """One sentence of up to ``most`` words, numbers and made-up words among them."""
    own = words(folder, language, held_out)
    common = _COMMON[language].split()
    said: list[str] = []
    for _ in range(int(draw.integers(2, most + 1))):
        kind = draw.random()
        if kind < 0.45:
            word = common[int(draw.integers(len(common)))]
        elif kind < 0.52:
            word = str(int(draw.integers(10 ** int(draw.integers(1, 5)))))
        elif own and kind < 0.95:
            word = own[int(draw.integers(len(own)))]
        else:
            word = _made_up(draw, language)
        said.append(word + ("," if draw.random() < 0.08 else ""))
    return " ".join(said).rstrip(",").capitalize() + _PUNCTUATION[int(draw.integers(len(_PUNCTUATION)))]


def _made_up(draw: np.random.Generator, language: str) -> str:
    consonants, vowels = (sounds.split() for sounds in _SOUNDS.get(language, _SOUNDS[""]))
    count = int(draw.integers(1, 4))
    return "".join(
        consonants[int(draw.integers(len(consonants)))] + vowels[int(draw.integers(len(vowels)))] for _ in range(count)
    )
