"""The styles that the embedded restyler knows by name, and which of them a few words mean."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from streamfx.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Style:
    """``number``: its row in ``TinyDiT.named``. ``words``: what people might call it, and whom it is like."""

    name: str
    number: int
    summary: str
    words: frozenset[str]


def _style(number: int, name: str, summary: str, words: str) -> Style:
    return Style(name, number, summary, frozenset(_words(f"{name} {summary} {words}")))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W_]{2,}", text.lower()) if word not in _EMPTY]


_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an and art as at by for from in into is it like look me my of on or painting picture style styled stylised "
        "stylized that the this to video with",
    )
)
"""Words that tell no style from another."""

STYLES = (
    _style(0, "ukiyo-e", "cream paper, indigo ink", "woodblock japanese hokusai hiroshige great wave print block navy"),
    _style(1, "starry-night", "blue and gold swirls", "van gogh vincent night sky stars swirl brush strokes"),
    _style(2, "pencil", "graphite on white paper", "sketch drawing charcoal grey gray black white line hatching"),
    _style(3, "colored-pencil", "crayons on white paper", "coloured colour color crayon crayons chalk sketch drawing"),
    _style(4, "comic", "flat colours and dark contours", "cartoon anime manga graphic novel cel shading animation"),
    _style(5, "watercolor", "pink and turquoise washes on white", "watercolour aquarelle wash wet pale light bright"),
    _style(6, "pop-art", "pink, sky blue, fat black lines", "warhol lichtenstein andy roy bold sixties retro pop"),
    _style(7, "ink-and-gold", "bold black lines, yellow and white", "linocut lino kandinsky yellow graphic ink cut"),
    _style(8, "stained-glass", "pastel panes in a web of lines", "glass church window tiffany mosaic delaunay prism"),
    _style(
        9, "engraving", "fine brown lines on gold", "etching copper plate copperplate duerer dürer gold vintage map"
    ),
    _style(10, "woodcut", "sepia carving on parchment", "sepia parchment carved wood medieval leonardo vinci da brown"),
    _style(11, "sanguine", "red chalk on dark paper", "terracotta clay earth rembrandt warm brown"),
    _style(12, "crimson", "glowing dark red", "red blood horror devil hell vampire rothko"),
    _style(13, "fauvist", "acid green, teal, rust", "matisse derain wild green acid poison jungle fauvism fauve"),
    _style(14, "expressionist", "red, ochre, pale blue", "munch scream kirchner expressionism edvard dramatic vivid"),
    _style(15, "impasto", "thick orange and violet strokes", "oil knife thick paint orange turner sunset fire autumn"),
    _style(16, "impressionist", "lavender and apricot haze", "monet claude impressionism renoir lilies soft pastel"),
    _style(17, "post-impressionist", "dabs of many colours", "seurat pointillism pointillist dots signac dabs cezanne"),
    _style(18, "dusk", "violet blue with olive light", "twilight evening blue violet purple moonlight cold chagall"),
    _style(19, "nocturne", "yellow and blue lights in black", "night neon city cyberpunk dark lights club primary"),
    _style(
        20, "cubist", "grey planes, black lines, red accents", "picasso braque cubism pablo geometric angular planes"
    ),
    _style(21, "gouache", "pale washes under black ink", "calligraphy sumi ink chinese brush wash gouache poster"),
    _style(22, "travel-poster", "sun yellow and sky blue", "poster vintage art deco travel summer sunny retro beach"),
    _style(23, "mist", "pale blue porcelain", "fog winter ice frost snow pale porcelain delft quiet blue cold"),
    _style(24, "velvet", "soft dark green and cream", "noir film old photograph photo gothic dark green dream soft"),
)
"""In the order of their numbers."""

BY_NAME = {style.name: style for style in STYLES}


def match(text: str) -> Style:
    """The style that ``text`` names or describes: the one with most of its words, rare words counting more, and
    misspelt ones a little less. Raises ``UsageError`` if none of them is known."""
    wanted = text.strip().lower()
    exact = BY_NAME.get(re.sub(r"[\s_]+", "-", wanted))
    if exact is not None:
        return exact
    scores = dict.fromkeys(BY_NAME, 0.0)
    for word in _words(wanted):
        for known, likeness in _known(word):
            sharing = [style.name for style in STYLES if known in style.words]
            for name in sharing:
                own = known in _words(name)
                scores[name] += likeness * (2.0 if own else 1.0) / len(sharing)
    best = max(scores, key=lambda name: scores[name])
    if scores[best] == 0:
        raise UsageError(f"no style is known by {text!r}; there are: {', '.join(BY_NAME)}")
    return BY_NAME[best]


_VOCABULARY = sorted(frozenset().union(*(style.words for style in STYLES)))


def _known(word: str) -> list[tuple[str, float]]:
    """The word of the vocabulary that ``word`` is or is meant to be, with how sure that is."""
    if word in _VOCABULARY:
        return [(word, 1.0)]
    near = difflib.get_close_matches(word, _VOCABULARY, 1, cutoff=0.8) if len(word) > 3 else []
    return [(found, 0.5) for found in near]
