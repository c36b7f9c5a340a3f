"""Known checkpoints: the table, its names, and what the command shows of it."""

from __future__ import annotations

import os
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamfx.cli.app import app
from streamfx.cli.models import size_text
from streamfx.core.errors import UsageError
from streamfx.models.registry import MODELS, KnownModel, find, folder_of, is_here, mark_complete, models_folder, resolve

NAMES = [model.name for model in MODELS]
DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_row_is_well_formed(model: KnownModel) -> None:
    assert re.fullmatch(r"[a-z0-9.-]+", model.name), "it is a folder's name too"
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.place)
    assert model.page == f"https://huggingface.co/{model.place}"
    assert 0 < model.gigabytes < 100
    assert 0 <= model.vram < 200
    assert "\n" not in model.summary + model.note
    assert model.summary
    assert model.licence
    assert model.files
    assert set(model.needs) <= set(NAMES) - {model.name}
    assert not model.entry or model.files[0].startswith(model.entry)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_pickles_are_fetched_only_by_name(model: KnownModel) -> None:
    """A pattern that takes everything would take pickles that lie beside safetensors."""
    for pattern in model.files:
        assert model.pickled or not pattern.endswith((".pt", ".bin", ".ckpt", ".pth"))
        assert not pattern.startswith("*.")
        assert pattern != "*"
    assert model.pickled == any(word in model.name for word in ("causvid", "forcing", "streamdiffusion", "longlive"))


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(FrozenInstanceError):
        MODELS[0].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_row_is_documented(model: KnownModel) -> None:
    size = size_text(model.gigabytes) + (", .pt" if model.pickled else "")
    cells = (f"`{model.name}`", f"[{model.summary}]({model.page})", size, size_text(model.vram), model.licence)
    assert f"| {' | '.join(cells)} |" in (DOCS / "models.md").read_text().splitlines()


def test_names_become_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    assert resolve("sd-turbo") == "stabilityai/sd-turbo"
    assert resolve("some/folder") == "some/folder"
    with pytest.raises(UsageError, match="streamfx models pull self-forcing"):
        resolve("self-forcing")
    with pytest.raises(UsageError, match="did you mean 'sd-turbo'"):
        find("sd-turob")
    for name in ("sd-turbo", "self-forcing"):
        (tmp_path / name).mkdir()
        assert not is_here(find(name)), "a folder alone is not a model"
        mark_complete(tmp_path / name)
        assert is_here(find(name))
    assert resolve("sd-turbo") == str(tmp_path / "sd-turbo")
    assert resolve("self-forcing") == str(tmp_path / "self-forcing" / "checkpoints" / "self_forcing_dmd.pt")


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"STREAMFX_MODELS": "/here/models", "XDG_CACHE_HOME": "/cache"}, "/here/models"),
        ({"STREAMFX_MODELS": "~/models"}, "/home/me/models"),
        ({"STREAMFX_MODELS": "", "XDG_CACHE_HOME": "/cache"}, "/cache/streamfx/models"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/streamfx/models"),
        ({}, "/home/me/.cache/streamfx/models"),
    ],
)
def test_where_models_lie(env: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMFX_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **env}.items():
        monkeypatch.setenv(name, value)
    assert os.fspath(models_folder()) == folder
    assert folder_of(find("taesd")) == Path(folder) / "taesd"


def test_the_list_and_a_line_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    (tmp_path / "taesd").mkdir()
    mark_complete(tmp_path / "taesd")
    listed = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"})
    assert listed.exit_code == 0
    for name in NAMES:
        assert name in listed.output
    assert "taesd ✓" in listed.output
    assert "taesdxl ✓" not in listed.output


def test_all_that_is_known_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    for model in MODELS:
        shown = CliRunner().invoke(app, ["models", "show", model.name], env={"COLUMNS": "400"})
        assert shown.exit_code == 0
        for text in (model.page, model.licence, model.note, size_text(model.gigabytes), *model.needs, *model.files):
            assert text in shown.output
        assert ("pickles" in shown.output) == model.pickled
