"""How flags, YAML file, environment and defaults become one run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamfx.config import EncodeConfig, FilterConfig, RunConfig, load_config
from streamfx.core.errors import ConfigError, StreamFXError, UsageError
from streamfx.filters import Block, Filter, FilterInfo, Params
from streamfx.media.base import OutputFormat
from streamfx.media.platforms import fitted
from streamfx.server.settings import load_relay_config, load_serve_config
from tests.support import ROOT

KEY = "live_k3y-0f-the-streamer"
TINT = f"{__name__}:Tint"
READY = sorted((ROOT / "configs").glob("*.yaml"))


class TintParams(Params):
    strength: float = 0.5
    colour: str = "red"


class Tint(Filter[TintParams]):
    name = "tint"
    info = FilterInfo(summary="For these tests.")

    def process(self, block: Block, params: TintParams) -> Block:
        return block


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., RunConfig]:
    """Loads YAML text with flags and an environment of its own."""

    def load_text(text: str, flags: dict[str, Any] | None = None, **environment: str) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(path, flags or {}, environment)

    return load_text


Load = Callable[..., RunConfig]


def test_flags_over_file_over_defaults(load: Load) -> None:
    config = load("fps: 25\nhold_ms: 500\nencode: {audio_kbps: 96}", {"fps": 50.0, "encode": {"preset": "fast"}})
    assert (config.fps, config.hold_ms, config.budget_ms) == (50, 500, 250)
    assert config.encode == EncodeConfig(audio_kbps=96, preset="fast")


def test_no_file() -> None:
    assert load_config(None, {"input": "a.mp4", "outputs": ["b.mp4"]}, {}) == RunConfig(
        input="a.mp4", outputs=["b.mp4"]
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_file(load: Load, text: str) -> None:
    assert load(text) == RunConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fsp: 25", "unknown key 'fsp'; did you mean 'fps'"),
        ("filter: {nmae: toon}", "unknown key 'filter.nmae'; did you mean 'filter.name'"),
        ("encode: {pre_set: fast}", "unknown key 'encode.pre_set'; did you mean 'encode.preset'"),
        ("quux: 1", "unknown key 'quux'; there are: outputs, filter"),
        ("1: 2", "unknown key '1'"),
        ("encode: {xyzzy: 1}", "unknown key 'encode.xyzzy'; there are: video_kbps"),
    ],
)
def test_unknown_key(load: Load, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("input: [a]", "input: "),
        ("outputs: 5", "outputs: "),
        ("outputs: [a.mp4, 5]", "outputs.1: "),
        ("fps: fast", "fps: "),
        ("fps: 0", "fps: "),
        ("fps: 241", "fps: "),
        ("fps: .nan", "fps: "),
        ("budget_ms: .inf", "budget_ms: "),
        ("filter: [toon]", "filter: "),
        ("filter: {params: {a: 1}}", "filter.name: "),
        ("filter: {name: toon, threads: many}", "filter.threads: "),
        ("filter: {name: toon, params: 3}", "filter.params: "),
        ("encode: 5", "encode: "),
        ("encode: {preset: warp}", "encode.preset: "),
        ("encode: {encoder: x265}", "encode.encoder: "),
        ("encode: {video_kbps: -1}", "encode.video_kbps: "),
        ("fallback: slate", "fallback: "),
        ("overwrite: perhaps", "overwrite: "),
    ],
)
def test_wrong_value(load: Load, text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert f"run.yaml: {where}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_output_without_a_list(load: Load) -> None:
    assert load("outputs: a.mp4").outputs == ["a.mp4"]


def test_variables(load: Load) -> None:
    text = "input: ${IN}\noutputs: ['rtmp://host/live/${KEY}', '${DIR}/${NAME}.mkv']\nfps: ${FPS}\n"
    config = load(text, IN="a.mp4", KEY=KEY, DIR="/tmp", NAME="b", FPS="25")
    assert config.input == "a.mp4"
    assert config.outputs == [f"rtmp://host/live/{KEY}", "/tmp/b.mkv"]
    assert config.fps == 25


def test_variable_in_a_parameter_and_in_a_flag(load: Load) -> None:
    config = load(
        f"filter: {{name: '{TINT}', params: {{colour: 'dark ${{SHADE}}'}}}}", {"input": "${IN}"}, SHADE="b", IN="c"
    )
    assert config.filter == FilterConfig(name=TINT, params={"colour": "dark b"})
    assert config.input == "c"


def test_what_is_no_variable_stays(load: Load) -> None:
    assert load("input: 'a$b{c}$(d).mp4'").input == "a$b{c}$(d).mp4"


@pytest.mark.parametrize("environment", [{}, {"STREAM_KEY": ""}], ids=["missing", "empty"])
def test_missing_variable(load: Load, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"STREAM_KEY is not set; export STREAM_KEY="):
        load("outputs: ['rtmp://host/live/${STREAM_KEY}']", **environment)


@pytest.mark.parametrize(
    "text",
    [
        "fps: ${STREAM_KEY}",
        "size: ${STREAM_KEY}",
        "fallback: ${STREAM_KEY}",
        "encode: {preset: '${STREAM_KEY}'}",
        "filter: {name: '${STREAM_KEY}'}",
        f"filter: {{name: '{TINT}', params: {{strength: '${{STREAM_KEY}}'}}}}",
        "outputs: ['rtmp://host:${STREAM_KEY}/live/x']",
        "outputs: ['rtmp://host/live/${STREAM_KEY}', 'rtmp://host:port/live/${STREAM_KEY}']",
        "input: ${STREAM_KEY}\noutputs: ['a b://x']\nfps: 0",
    ],
)
def test_no_secret_in_an_error(load: Load, text: str) -> None:
    try:
        config = load("input: a.mp4\n" + text if "input" not in text else text, STREAM_KEY=KEY)
    except ConfigError as error:
        shown = str(error)
    else:
        with pytest.raises(UsageError) as caught:
            config.session_settings()
        shown = config.without_secrets(str(caught.value))
    assert KEY not in shown


def test_the_variables_name_is_shown_instead(load: Load) -> None:
    config = load("input: '${A}-${B}'", A=KEY, B="x")
    assert config.without_secrets(f"{KEY} and x") == "${A} and x"
    assert KEY not in repr(load("fps: 25\ninput: a.mp4", A=KEY))


def test_filter_as_text(load: Load) -> None:
    assert load("filter: toon").filter == FilterConfig(name="toon")
    assert load("filter: toon", {"filter": {"threads": 4}}).filter == FilterConfig(name="toon", threads=4)


def test_set_over_the_files_parameters(load: Load) -> None:
    text = f"filter: {{name: '{TINT}', threads: 3, params: {{strength: 0.1, colour: blue}}}}"
    config = load(text + "\ninput: a.mp4", {"filter": {"params": {"strength": "0.9"}}})
    assert config.filter == FilterConfig(name=TINT, threads=3, params={"strength": "0.9", "colour": "blue"})
    choice = config.session_settings().filter
    assert choice is not None
    assert choice.params == TintParams(strength=0.9, colour="blue")


def test_another_filter_drops_the_files_parameters(load: Load) -> None:
    text = "filter: {name: toon, threads: 3, params: {levels: 4}}"
    config = load(text, {"filter": {"name": TINT, "params": {"colour": "blue"}}})
    assert config.filter == FilterConfig(name=TINT, threads=3, params={"colour": "blue"})
    assert load(text, {"filter": {"name": "toon"}}).filter == FilterConfig(name="toon", threads=3, params={"levels": 4})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fps: 25\nencode: {preset: fast\nsize: 1x1\n", "not valid YAML in line 3"),
        ("fps: 25\n\tsize: 1\n", "not valid YAML in line 2"),
        ("input: 'a\n", "not valid YAML in line"),
        ("input: a\0b", "not valid YAML"),
        ("input: !!python/object:os.system {}", "not valid YAML in line 1"),
        ("- a\n- b\n", "top level"),
        ("just text", "top level"),
        ("42", "top level"),
        ("input: 2020-13-45", "put it in quotes"),
        ("overwrite: !!bool maybe", "put it in quotes"),
        ("outputs: &all [*all]", "put it in quotes"),
        ("[" * 5000, "YAML|put it in quotes"),
    ],
)
def test_unreadable(load: Load, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert any(words in str(caught.value) for words in says.split("|"))
    assert "run.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "picture.yaml").write_bytes(bytes(range(256)))
    for path, says in [
        (tmp_path / "picture.yaml", "cannot be read as text"),
        (tmp_path, "cannot be read as text"),
        (tmp_path / "none.yaml", "does not exist"),
    ]:
        with pytest.raises(ConfigError, match=says):
            load_config(path, {}, {})


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (29.97, Fraction(30_000, 1001)),
        (23.976, Fraction(24_000, 1001)),
        (59.94, Fraction(60_000, 1001)),
        (119.88, Fraction(120_000, 1001)),
        (25, Fraction(25)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (1, Fraction(1)),
        (240, Fraction(240)),
    ],
)
def test_rate(fps: float, rate: Fraction) -> None:
    assert RunConfig(input="a.mp4", fps=fps).session_settings().fps == rate


def test_settings() -> None:
    config = RunConfig(
        input="a.mp4", outputs=["b.mkv", "rtmp://host/live/key"], size="640x360", budget_ms=100, overwrite=True,
        encode=EncodeConfig(video_kbps=2500, audio_kbps=96, preset="fast", gop_seconds=1),
    )  # fmt: skip
    settings = config.session_settings()
    assert settings.size == (640, 360)
    assert settings.fps is None
    assert settings.budget == pytest.approx(0.1)
    assert (settings.encode.video_bitrate, settings.encode.audio_bitrate) == (2_500_000, 96_000)
    assert settings.outputs[0].flag("overwrite", False)
    assert settings.outputs[1].raw == "rtmp://host/live/key"


def test_no_input() -> None:
    with pytest.raises(UsageError, match="no input"):
        RunConfig(outputs=["b.mp4"]).session_settings()


_NAMES = st.sampled_from([*RunConfig.model_fields, *FilterConfig.model_fields, *EncodeConfig.model_fields, "x", "", 7])
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.binary(max_size=4),
    st.sampled_from(["toon", "passthrough", "1280x720", "rtmp://h:p/a/b", "rtmp://[/x", "file://", "?", "${HOME}"]),
)  # fmt: skip
_NESTED = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(values=st.dictionaries(_NAMES, _NESTED, max_size=6))
def test_any_yaml_gives_a_configuration_or_one_sentence(load: Load, values: dict[Any, Any]) -> None:
    try:
        config = load(yaml.safe_dump(values), HOME="/home")
    except ConfigError:
        return
    try:
        config.session_settings()
    except UsageError:
        pass
    except StreamFXError:
        assert config.filter is not None
        assert ":" in config.filter.name, "only a module that was named may turn out to be none"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet=st.sampled_from("ab:[]{}-&*!|>'\"#%@`\n\t ,?$1.=~é\x00"), max_size=30) | st.text(max_size=20)
)
def test_any_text_gives_a_configuration_or_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load_config(path, {}, {})


def test_there_are_ready_files() -> None:
    assert {path.name for path in READY} >= {"file.yaml", "obs.yaml", "twitch-relay.yaml", "browser-demo.yaml"}


FOR_SERVERS = [path for path in READY if "streamfx serve" in path.read_text()]
FOR_RELAYS = [path for path in READY if "streamfx relay" in path.read_text()]
DEPLOYED = ROOT / "examples" / "deploy" / "relay.yaml"


@pytest.mark.parametrize("path", FOR_SERVERS, ids=lambda path: path.name)
def test_ready_file_for_a_server(path: Path) -> None:
    config = load_serve_config(path, {}, {})
    for session in config.all_sessions().values():
        assert session.filter is None or session.filter.name in shipped_filters()


@pytest.mark.parametrize("path", [*FOR_RELAYS, DEPLOYED], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_ready_file_for_a_relay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITCH_KEY", KEY)
    monkeypatch.setenv("YOUTUBE_KEY", KEY)
    config = load_relay_config(path, {}, {"STREAMFX_RTMP_KEY": KEY, "STREAMFX_TOKEN": KEY})
    settings = config.settings_of("live", config.all_sessions()["live"])
    assert [str(url) for url in settings.outputs] == ["twitch", "youtube"]
    assert settings.size is not None
    assert settings.fps is not None
    wanted = OutputFormat(settings.size, settings.fps, audio=True, live=True, encode=settings.encode)
    assert {fitted(url, wanted) for url in settings.outputs} == {wanted}, "one encode for all"


@pytest.mark.parametrize(
    "path", [path for path in READY if path not in FOR_SERVERS + FOR_RELAYS], ids=lambda path: path.name
)
def test_ready_file(path: Path) -> None:
    keys = {"STREAM_KEY": KEY, "TWITCH_KEY": KEY + "1", "YOUTUBE_KEY": KEY + "2"}
    config = load_config(path, {}, keys)
    assert config.input
    assert config.outputs
    if config.filter is not None:
        assert config.filter.name in shipped_filters()
        config = config.model_copy(update={"filter": None})
    settings = config.session_settings()
    assert len(settings.outputs) == len(config.outputs)
    assert KEY not in "".join(map(str, settings.outputs))


def shipped_filters() -> set[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["entry-points"]["streamfx.filters"])
