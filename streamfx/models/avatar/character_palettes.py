"""Colours that go together: skin, hair, eyes, and themes of background and clothes. All ``#rrggbb``."""

from __future__ import annotations

from typing import NamedTuple


class Skin(NamedTuple):
    """One skin: in the light, in the shade, where it blushes, and its lips."""

    base: str
    shade: str
    blush: str
    lip: str


class Theme(NamedTuple):
    """One background (above, below, and its motif) with clothes and an accent that suit it."""

    above: str
    below: str
    motif: str
    cloth: str
    accent: str


SKINS = (
    Skin("#fce6da", "#e8b7a5", "#f6a79f", "#d98380"),
    Skin("#fadcc8", "#e3a98f", "#f1988a", "#d0766f"),
    Skin("#f6cdb0", "#db9a7a", "#ec8c75", "#c4685d"),
    Skin("#f0c19c", "#d08f69", "#e28166", "#bb6152"),
    Skin("#e8b189", "#c37f57", "#d87354", "#ae5747"),
    Skin("#dfa578", "#b87449", "#ce6848", "#a54f41"),
    Skin("#d3a07a", "#a8734e", "#c06c53", "#9d5449"),
    Skin("#cb8f66", "#9f6442", "#ba5f46", "#93473c"),
    Skin("#bb7c54", "#8e5335", "#ab513e", "#8a4139"),
    Skin("#a56a44", "#7a442a", "#974733", "#86403a"),
    Skin("#8e5837", "#653821", "#853e2f", "#7c3a37"),
    Skin("#78482d", "#522b1b", "#743229", "#7e3f3c"),
    Skin("#633a27", "#432318", "#662b26", "#79403e"),
    Skin("#503022", "#351e16", "#582723", "#6e3d3c"),
)

HAIR_DARK = ("#29232a", "#2d2422", "#3a2a26", "#4a3129")
HAIR_BROWN = ("#5c3d2c", "#704a33", "#7d4b31", "#8c4a2c")
HAIR_LIGHT = ("#b4602f", "#c8783c", "#ab8150", "#d6ae68", "#e6cd9a")
HAIR_GREY = ("#86858b", "#aaaab0", "#cfd0d6", "#e6e4e2")
HAIR_DYED = ("#e58aa8", "#43a5a5", "#5677d6", "#a58bd8", "#8fcab2", "#c93b52", "#f0a05a")

EYES_DARK = ("#3d2a20", "#4e3222", "#633f27")
EYES_LIGHT = ("#7a5a2f", "#6f7a3e", "#4f8a68", "#4783a8", "#5f9ccb", "#71858f", "#8a6fae")

THEMES = (
    Theme("#f9e1c4", "#f0b48f", "#fbeedd", "#2f6168", "#f3d9a8"),
    Theme("#cfe6e4", "#8fc1c4", "#e6f3ef", "#d9694f", "#fbe8cf"),
    Theme("#f6d3d3", "#e59aa3", "#fbe8e4", "#3d4a73", "#f4c16d"),
    Theme("#dcd8f2", "#a99fdb", "#efecfa", "#f2b84f", "#5a4a8c"),
    Theme("#fbe7a9", "#f2bd5b", "#fdf3d2", "#3a6ea5", "#fdf6e6"),
    Theme("#d3e8c8", "#93bf8c", "#e9f4e0", "#7a3f5a", "#f5d8c4"),
    Theme("#c8dcf3", "#86aedd", "#e2eefa", "#f4f1ea", "#d95f52"),
    Theme("#efe4d6", "#cdb79c", "#f8f2e9", "#4d5d4a", "#d98e4a"),
    Theme("#fad2bd", "#ee8c76", "#fde6d8", "#23395b", "#f7ede2"),
    Theme("#bfe0d6", "#5fae9f", "#dcefe9", "#f3e7d3", "#c9583f"),
    Theme("#e7dbe9", "#b893bd", "#f4edf5", "#2e3440", "#e8b4bc"),
    Theme("#d8e2e9", "#93a9bb", "#edf2f5", "#8c3b47", "#e9dfd2"),
    Theme("#fde0e6", "#f3a6b8", "#fef0f2", "#4aa39a", "#ffffff"),
    Theme("#e3ebc9", "#b4c77f", "#f2f6e2", "#5d4a7e", "#f4d35e"),
)

NIGHTS = (
    Theme("#252147", "#4b2667", "#3a2b66", "#39406b", "#ff6fae"),
    Theme("#12293d", "#1f5162", "#1d4257", "#5a3550", "#4fe0d2"),
    Theme("#2b1d3c", "#6b2f57", "#4f2850", "#2c4a63", "#ffa25e"),
    Theme("#1a2250", "#33459a", "#28347a", "#6a4038", "#7fd0ff"),
)
