"""The YAML file of a run, and how flags, file and defaults become one session's settings."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from streamfx.core.errors import ConfigError, UsageError
from streamfx.core.playout import GatePolicy
from streamfx.filters.registry import load, parse_params, target_of
from streamfx.media.base import EncodeSettings
from streamfx.media.encoders import EncoderName
from streamfx.media.platforms import output_url
from streamfx.media.url import MediaUrl, parse_size
from streamfx.pipeline.settings import FilterChoice, SessionSettings

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterConfig(_Strict):
    """Which filter runs, and how."""

    name: str = Field(description="a name from `streamfx filters`, or module:Class")
    params: dict[str, Any] = Field(default_factory=dict, description="its parameters")
    inline: bool = Field(False, description="in a thread of the stream's process, for debugging")
    threads: int | None = Field(
        None, ge=1, le=256, description="CPU threads it may use; default: 1, and where files go to files, all there are"
    )

    def choice(self) -> FilterChoice:
        """The filter itself. Raises ``UsageError`` or ``FilterError``."""
        target = target_of(self.name)
        kind = load(target)
        return FilterChoice(target, kind, parse_params(kind, self.params), self.inline, self.threads)


class EncodeConfig(_Strict):
    """How outputs are encoded."""

    video_kbps: int = Field(0, ge=0, le=100_000, description="0: by size (live), or constant quality (files)")
    audio_kbps: int = Field(128, ge=16, le=512)
    encoder: EncoderName = Field("auto", description="auto: in hardware where that works, else software")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = Field(
        "veryfast", description="of the software encoder"
    )
    gop_seconds: float = Field(2.0, ge=0.1, le=10, description="seconds between key frames")


class StreamConfig(_Strict):
    """How one stream is treated, whatever it comes from."""

    outputs: list[str] = Field(
        default_factory=list, description="platforms, files and URLs it goes to; `to:` is the same"
    )
    filter: FilterConfig | None = Field(None, description="none: frames are passed on as they are")
    fps: float | None = Field(None, ge=1, le=240, description="frames per second of the output; none: the source's")
    size: str | None = Field(None, description="WIDTHxHEIGHT of the output; none: the source's")
    budget_ms: float = Field(250, ge=10, le=60_000, description="what a frame's rendering may take, capture to output")
    hold_ms: float = Field(
        1000, ge=0, le=600_000, description="how long the last good output may stand in for new ones"
    )
    slate_after_ms: float = Field(
        3000, ge=100, le=600_000, description="time without a source until the slate is shown"
    )
    fallback: Literal["source", "hold"] = Field(
        "source", description="after hold_ms: the source, or the last output on"
    )
    encode: EncodeConfig = Field(default_factory=EncodeConfig)

    def settings(self, source: MediaUrl, outputs: tuple[MediaUrl, ...]) -> SessionSettings:
        """What the pipeline needs of it. Raises ``UsageError``."""
        return SessionSettings(
            source=source,
            outputs=outputs,
            filter=self.filter.choice() if self.filter else None,
            size=parse_size(self.size) if self.size else None,
            fps=_rate(self.fps) if self.fps else None,
            budget=self.budget_ms / 1e3,
            gate=GatePolicy(self.hold_ms / 1e3, self.slate_after_ms / 1e3, self.fallback),
            encode=EncodeSettings(
                video_bitrate=1000 * self.encode.video_kbps,
                audio_bitrate=1000 * self.encode.audio_kbps,
                preset=self.encode.preset,
                gop_seconds=self.encode.gop_seconds,
                encoder=self.encode.encoder,
            ),
        )


class RunConfig(StreamConfig):
    """One run. Every key may also be given as a flag of `streamfx run`, which wins."""

    input: str = Field("", description="file or URL the stream comes from")
    overwrite: bool = Field(False, description="replace output files that exist")
    stats_json: Path | None = Field(None, description="file that gets the statistics, every second and at the end")

    _substituted: dict[str, str] = PrivateAttr(default_factory=dict)

    def without_secrets(self, text: str) -> str:
        """``text`` with ``${NAME}`` in place of what came from the environment."""
        for name, value in self._substituted.items():
            if len(value) > 3:
                text = text.replace(value, f"${{{name}}}")
        return text

    def session_settings(self) -> SessionSettings:
        """What the pipeline needs of it. Raises ``UsageError``."""
        if not self.input:
            raise UsageError("no input was given; name a file or URL, or set `input:` in the configuration")
        outputs = [output_url(text) for text in self.outputs]
        if self.overwrite:
            outputs = [_overwriting(url) for url in outputs]
        return self.settings(MediaUrl.parse(self.input), tuple(outputs))


_Config = TypeVar("_Config", bound=BaseModel)


def load_config(path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> RunConfig:
    """``read_config`` for one run."""
    config, used = read_config(RunConfig, path, flags, environment)
    config._substituted.update(used)
    return config


def read_config(
    model: type[_Config], path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[_Config, dict[str, str]]:
    """Reads ``path`` (none: an empty file), lays ``flags`` over it, replaces ``${NAME}`` by the environment's value.

    ``flags`` has the keys of ``model`` that were given. Returns also what was taken from the environment, by name.
    Raises ``ConfigError`` naming the key and, for an unknown one, the nearest known.
    """
    values = _read(path) if path is not None else {}
    used: dict[str, str] = {}
    merged = _substitute(_overlay(values, flags), environment, used)
    _refuse_unknown(merged, model, "")
    try:
        return model.model_validate(merged), used
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path or 'options'}: {where}: {_lower_first(first['msg'])}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        _refuse_circles(values, ())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; check the file name, or see the ready ones in configs/") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text; check that it is a YAML file you may read") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path} is not valid YAML{line}: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # What the YAML library lets through: impossible dates and tags, and nesting without end.
        raise ConfigError(
            f"{path} holds a value that cannot be read ({type(error).__name__}); put it in quotes"
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines at its top level")
    _spell_out(values)
    for session in values["sessions"].values() if isinstance(values.get("sessions"), dict) else ():
        if isinstance(session, dict):
            _spell_out(session)
    return values


def _spell_out(values: dict[str, Any]) -> None:
    """Short forms: a filter by its name alone, one output without a list, `to:` for outputs."""
    if isinstance(values.get("filter"), str):
        values["filter"] = {"name": values["filter"]}
    for key in ("outputs", "to"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    if "to" in values and "outputs" in values:
        raise ConfigError("`to` and `outputs` are the same; put all into one of them")
    if "to" in values:
        values["outputs"] = values.pop("to")


def _overlay(values: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over file. Parameters of another filter than the file's do not carry over."""
    merged = dict(values)
    for key, value in flags.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            below = merged[key]
            if key == "filter" and value.get("name", below.get("name")) != below.get("name"):
                below = {k: v for k, v in below.items() if k != "params"}
            merged[key] = _overlay(below, value)
        else:
            merged[key] = value
    return merged


def _refuse_circles(value: Any, above: tuple[int, ...]) -> None:
    """Raises ``RecursionError`` for a YAML anchor that holds itself."""
    if isinstance(value, dict | list):
        if id(value) in above:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_circles(item, (*above, id(value)))


def _substitute(value: Any, environment: Mapping[str, str], used: dict[str, str]) -> Any:
    """Replaces ``${NAME}`` in every text, and notes in ``used`` what it took."""
    if isinstance(value, dict):
        return {key: _substitute(item, environment, used) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, environment, used) for item in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        if not environment.get(match[1]):
            raise ConfigError(f"the environment variable {match[1]} is not set; export {match[1]}=... first")
        used[match[1]] = environment[match[1]]
        return environment[match[1]]

    return _VARIABLE.sub(look_up, value)


def _refuse_unknown(values: Any, model: type[BaseModel], prefix: str) -> None:
    """Raises ``ConfigError`` for a key that ``model``, or a model within it, does not have."""
    if not isinstance(values, dict):
        return
    known = model.model_fields
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise ConfigError(f"unknown key {prefix + str(key)!r}; {hint}")
        inner, by_name = _model_within(known[key].annotation)
        if inner is not None and by_name and isinstance(value, dict):
            for name, item in value.items():
                _refuse_unknown(item, inner, f"{prefix}{key}.{name}.")
        elif inner is not None:
            _refuse_unknown(value, inner, f"{prefix}{key}.")


def _model_within(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds several by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    by_name = get_origin(annotation) is dict
    for argument in get_args(annotation):
        inner, _ = _model_within(argument)
        if inner is not None:
            return inner, by_name
    return None, False


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _rate(fps: float) -> Fraction:
    """29.97 means 30000/1001; other rates are taken as near as a small fraction comes."""
    ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
    if fps != round(fps) and abs(float(ntsc) - fps) < 0.01:
        return ntsc
    return Fraction(fps).limit_denominator(1001)


def _overwriting(url: MediaUrl) -> MediaUrl:
    if url.scheme != "file":
        return url
    return MediaUrl(url.raw, url.scheme, path=url.path, options=url.options | {"overwrite": "1"})
