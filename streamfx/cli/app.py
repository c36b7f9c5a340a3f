"""Commands and their options. What they do is imported when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from streamfx import __version__
from streamfx.core.errors import StreamFXError, UsageError, redact

app = typer.Typer(
    name="streamfx",
    help="Live AI video filters: a stream comes in, a filter works on it by its deadline, a stream goes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INPUT = (
    "A file, [b]testpattern://[/b], [b]rtmp(s)://HOST/APP/KEY[/b] to pull, "
    "or rtmp://HOST:PORT/APP/KEY?listen=1 to be pushed to; [b]rtsp(s)://USER:PASSWORD@HOST/PATH[/b]; "
    "[b]srt://HOST:PORT[/b], or srt://:PORT?mode=listener to be called; [b]camera://0[/b] or "
    "[b]microphone://default[/b], which [b]streamfx devices[/b] lists."
)
_ENCODER = (
    "Of the outputs: [b]auto[/b] (hardware where it works), software, nvenc, qsv, vaapi, amf or videotoolbox. "
    "Default: auto."
)
_OUTPUTS = (
    "Files (.mp4 .mkv .mov .ts .flv, .m3u8 for HLS), [b]rtmp(s)://HOST/APP/KEY[/b], [b]rtsp(s)://HOST/PATH[/b], "
    "[b]srt://HOST:PORT[/b], [b]virtualcam://[/b], and platforms as for --to, "
    "as many as you like."
)
_TO = (
    "[b]twitch[/b], youtube, kick or facebook, with the key of [b]streamfx keys set[/b] or of TWITCH_KEY and so on; "
    "twitch:@FILE; custom:rtmp(s)://HOST/APP/KEY. May be repeated; docs/relay.md has more."
)
_DRY_RUN = "Only try whether the targets take the stream: connect, ask, and send no picture."


@app.command()
def run(
    input: Annotated[str | None, typer.Argument(help=_INPUT, show_default=False)] = None,
    outputs: Annotated[list[str] | None, typer.Argument(help=_OUTPUTS, show_default=False)] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help=_TO, show_default=False)] = None,
    filter: Annotated[
        str | None, typer.Option("--filter", "-f", help="Filter; [b]streamfx filters[/b] lists them.")
    ] = None,
    set: Annotated[list[str] | None, typer.Option("--set", "-s", help="A filter parameter as key=value.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="How the filter's networks run: eager, [b]auto[/b] (by measurement), openvino-bf16 …"),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; flags win over it.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of the output. Default: the source's.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output. Default: the source's.")] = None,
    encoder: Annotated[str | None, typer.Option(help=_ENCODER)] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Milliseconds from capture to output a rendering may take. Default: 250.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(help="When the filter is away: show the [b]source[/b], or [b]hold[/b] the last output."),
    ] = None,
    inline: Annotated[
        bool | None, typer.Option("--inline", help="Run the filter in this process, for debugging.", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads for the filter. Default: 1, for files all.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", "-y", help="Replace output files.", show_default=False)
    ] = None,
    stats_json: Annotated[Path | None, typer.Option(help="Write statistics here, every second and at the end.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_DRY_RUN, show_default=False)] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Run a stream: INPUT through a filter to one or more OUTPUTs.

    A file goes to files as fast as the machine can, every frame filtered. Live inputs and outputs run in real time:
    each frame has a deadline, and what comes too late is replaced, never waited for.
    """
    _set_up_logging(log_level)
    flags: dict[str, Any] = {
        "input": input,
        "outputs": [*(outputs or []), *(to or [])] or None,
        "fps": fps,
        "size": size,
        "encode": {"encoder": encoder} if encoder else None,
        "budget_ms": budget_ms,
        "fallback": fallback,
        "overwrite": overwrite,
        "stats_json": stats_json,
    }
    of_filter = {"name": filter, "params": _pairs(set or [], engine) or None, "inline": inline, "threads": threads}
    flags["filter"] = {key: value for key, value in of_filter.items() if value is not None} or None

    from streamfx.cli.run import run_session, try_run
    from streamfx.config import load_config

    given = {key: value for key, value in flags.items() if value is not None}
    if "filter" in given and "name" not in given["filter"] and config is None:
        raise UsageError("--set, --engine, --inline and --threads are for a filter; name it with --filter")
    loaded = load_config(config, given)
    if dry_run:
        raise typer.Exit(try_run(loaded))
    run_session(loaded)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; flags win over it.")] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help=_TO, show_default=False)] = None,
    filter: Annotated[
        str | None, typer.Option("--filter", "-f", help="Filter of the session [b]live[/b] to begin with.")
    ] = None,
    set: Annotated[list[str] | None, typer.Option("--set", "-s", help="A filter parameter as key=value.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="How the filter's networks run: eager, [b]auto[/b] (by measurement), openvino-bf16 …"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1; others need STREAMFX_TOKEN to be set.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the page, WHIP, WHEP and REST. Default: 8080.")] = None,
    rtmp_port: Annotated[
        int | None, typer.Option(help="Port for publishing by RTMP; 0: none. Default: 1935 if it is free.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help=_ENCODER)] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM), for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Serve a web page with live filters, WHIP and RTMP for publishing, WHEP for watching, and a REST interface.

    Open the address it prints: choose a camera or a file, see before and after, change everything while it runs.
    """
    _set_up_logging(log_level)
    of_filter = {"name": filter, "params": _pairs(set or [], engine) or None}
    flags: dict[str, Any] = {
        "outputs": to or None,
        "host": host,
        "port": port,
        "rtmp_port": rtmp_port,
        "encode": {"encoder": encoder} if encoder else None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
    }
    flags["filter"] = {key: value for key, value in of_filter.items() if value is not None} or None
    given = {key: value for key, value in flags.items() if value is not None}
    if "filter" in given and filter is None and config is None:
        raise UsageError("--set and --engine are for a filter; name it with --filter")

    from streamfx.cli.serve import run_server

    run_server(config, given)


@app.command()
def relay(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; flags win over it.")] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help=_TO, show_default=False)] = None,
    filter: Annotated[
        str | None, typer.Option("--filter", "-f", help="Filter; [b]streamfx filters[/b] lists them.")
    ] = None,
    set: Annotated[list[str] | None, typer.Option("--set", "-s", help="A filter parameter as key=value.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="How the filter's networks run: eager, [b]auto[/b] (by measurement), openvino-bf16 …"),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second sent. Default: the publisher's.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT sent. Default: the publisher's.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1; others need STREAMFX_TOKEN to be set.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the page, WHIP, health and metrics. Default: 8080.")] = None,
    rtmp_port: Annotated[int | None, typer.Option(help="Port for publishing by RTMP; 0: none. Default: 1935.")] = None,
    encoder: Annotated[str | None, typer.Option(help=_ENCODER)] = None,
    drain_s: Annotated[
        float | None, typer.Option(help="Seconds that streams get at most to go out when it ends. Default: 10.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_DRY_RUN, show_default=False)] = False,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug, info, warning or error. Default: the states of sources and targets, and warnings."),
    ] = None,
) -> None:
    """Relay a stream: take it in by RTMP or WHIP, filter it, and push it to one or more platforms, for ever.

    Publishers use the key in STREAMFX_RTMP_KEY, or `rtmp_key:` of the file. SIGHUP reads the file again; SIGTERM ends
    in good order.
    """
    _set_up_logging(log_level or "warning")
    if log_level is None:
        for name in ("cli.relay", "server.reload"):
            logging.getLogger(f"streamfx.{name}").setLevel(logging.INFO)
    of_filter = {"name": filter, "params": _pairs(set or [], engine) or None}
    flags: dict[str, Any] = {
        "outputs": to or None,
        "filter": {key: value for key, value in of_filter.items() if value is not None} or None,
        "fps": fps,
        "size": size,
        "host": host,
        "port": port,
        "rtmp_port": rtmp_port,
        "encode": {"encoder": encoder} if encoder else None,
        "drain_s": drain_s,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    if "filter" in given and filter is None and config is None:
        raise UsageError("--set and --engine are for a filter; name it with --filter")

    from streamfx.cli.relay import run_relay, try_relay

    if dry_run:
        raise typer.Exit(try_relay(config, given))
    run_relay(config, given)


keys = typer.Typer(help="Keep stream keys of platforms in the system's keyring.", no_args_is_help=True)
app.add_typer(keys, name="keys", rich_help_panel="Commands")


@keys.command("set")
def set_key(
    name: Annotated[str, typer.Argument(help="A platform, or a name of your own for --to PLATFORM:@NAME.")],
) -> None:
    """Ask for a stream key, without showing it, and keep it."""
    from streamfx.cli.keys import set_key

    set_key(name)


@keys.command("rm")
def remove_key(name: Annotated[str, typer.Argument(help="As it was set.", show_default=False)]) -> None:
    """Forget a stream key."""
    from streamfx.cli.keys import remove_key

    remove_key(name)


@app.command()
def filters(
    name: Annotated[str | None, typer.Argument(help="Show this one's parameters.", show_default=False)] = None,
) -> None:
    """List the filters, or show one filter's parameters with their bounds."""
    from streamfx.cli.filters import show_filter, show_filters

    show_filter(name) if name else show_filters()


models = typer.Typer(help="List the checkpoints that are known by name; show one, or fetch it.")
app.add_typer(models, name="models", rich_help_panel="Commands")


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from streamfx.cli.models import show_models

        show_models()


@models.command("show")
def show_model(name: Annotated[str, typer.Argument(help="A name from the list.", show_default=False)]) -> None:
    """Show what a checkpoint is, needs, and where it comes from."""
    from streamfx.cli.models import show_model

    show_model(name)


@models.command("pull")
def pull_model(name: Annotated[str, typer.Argument(help="A name from the list.", show_default=False)]) -> None:
    """Fetch a checkpoint. One that was broken off goes on where it was."""
    from streamfx.cli.models import pull_model

    pull_model(name)


@app.command("compile")
def compile_engines(
    filter: Annotated[str, typer.Argument(help="A filter whose networks have engines.", show_default=False)],
    set: Annotated[list[str] | None, typer.Option("--set", "-s", help="A filter parameter as key=value.")] = None,
    engine: Annotated[str, typer.Option(help="[b]auto[/b] (by measurement), or one by name, as openvino.")] = "auto",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the stream.")] = "1280x720",
    threads: Annotated[int, typer.Option(help="CPU threads of the filter; 1 in a live stream.")] = 1,
) -> None:
    """Make a filter's engines ahead, for streams of a size: those that run later with --engine find them ready."""
    from streamfx.cli.engines import compile_for

    compile_for(filter, _pairs(set or [], engine), size, threads)


engines = typer.Typer(help="List the engines that are kept, or remove them.", no_args_is_help=True)
app.add_typer(engines, name="engines", rich_help_panel="Commands")


@engines.command("ls")
def list_engines() -> None:
    """List the engines, the last used first."""
    from streamfx.cli.engines import show_engines

    show_engines()


@engines.command("rm")
def remove_engines(
    keys: Annotated[list[str] | None, typer.Argument(help="Beginnings of keys.", show_default=False)] = None,
    all: Annotated[bool, typer.Option("--all", help="Remove all.", show_default=False)] = False,
) -> None:
    """Remove engines."""
    from streamfx.cli.engines import remove

    remove(keys or [], all)


obs = typer.Typer(help="Have a running OBS show a session, or publish to one.", no_args_is_help=True)
app.add_typer(obs, name="obs", rich_help_panel="Commands")

_OBS = "Where OBS's WebSocket server is; its password is taken from OBS_WEBSOCKET_PASSWORD."


@obs.command("setup")
def set_up_obs(
    obs: Annotated[str, typer.Option(help=_OBS)] = "ws://127.0.0.1:4455",
    server: Annotated[
        str,
        typer.Option(help="The streamfx server, as OBS reaches it; its token is taken from STREAMFX_TOKEN."),
    ] = "http://127.0.0.1:8080",
    session: Annotated[str, typer.Option(help="The session.")] = "live",
    name: Annotated[str, typer.Option(help="Of the source in OBS.")] = "streamfx",
    scene: Annotated[str | None, typer.Option(help="Default: the current one.", show_default=False)] = None,
    source: Annotated[
        bool | None,
        typer.Option(
            "--source/--no-source",
            help="Put a source that shows the session into the scene. Default: yes; with --send no, as OBS would then "
            "see itself.",
            show_default=False,
        ),
    ] = None,
    sound: Annotated[bool, typer.Option("--sound", help="The source has sound.", show_default=False)] = False,
    send: Annotated[
        str | None,
        typer.Option(help="Have OBS stream to the session: [b]rtmp[/b], or [b]whip[/b] from OBS 30 on."),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start OBS's stream.", show_default=False)] = False,
) -> None:
    """Put a source that shows a session into OBS, or have OBS stream to it. Doing so twice changes nothing more."""
    if send not in (None, "rtmp", "whip"):
        raise UsageError(f"--send {send!r} is not possible; choose rtmp or whip")

    from streamfx.cli.obs import SetUp, set_up

    shown = send is None if source is None else source
    set_up(SetUp(obs, server, session, name, scene, shown, sound, send, start))


@obs.command("remove")
def remove_from_obs(
    obs: Annotated[str, typer.Option(help=_OBS)] = "ws://127.0.0.1:4455",
    name: Annotated[str, typer.Option(help="Of the source in OBS.")] = "streamfx",
) -> None:
    """Remove the source from OBS."""
    from streamfx.cli.obs import remove

    remove(obs, name)


@app.command()
def devices() -> None:
    """List the cameras, microphones and virtual cameras of this machine, each with its address."""
    from streamfx.cli.devices import show_devices

    show_devices()


@app.command()
def doctor() -> None:
    """Show what this machine can do, and the command that adds what is missing."""
    from streamfx.cli.doctor import show_doctor

    raise typer.Exit(show_doctor())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamfx {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


def _pairs(texts: list[str], engine: str | None = None) -> dict[str, str]:
    pairs = {} if engine is None else {"engine": engine}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text!r} is not possible; write --set key=value")
        pairs[key] = value
    return pairs


class _StderrHandler(logging.Handler):
    """Writes to what stderr is at the moment: a display in the terminal takes it over, to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def _set_up_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise UsageError(f"--log-level {level!r} is not possible; choose debug, info, warning or error")
    handler = _StderrHandler()
    logging.basicConfig(level=number, format="%(asctime)s %(levelname)s %(name)s %(message)s", handlers=[handler])


def main() -> int:
    """The ``streamfx`` command. Returns the exit code: 0, 1 (it went wrong) or 2 (it cannot be done as asked)."""
    try:
        app(standalone_mode=True)
    except StreamFXError as error:
        typer.secho(f"streamfx: {' '.join(str(error).split())}", err=True, fg=typer.colors.RED)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        logging.getLogger(__name__).debug("internal error", exc_info=True)
        text = redact(" ".join(f"{type(error).__name__}: {error}".split()))
        typer.secho(
            f"streamfx: internal error: {text}; please report it with the output of --log-level debug",
            err=True,
            fg=typer.colors.RED,
        )
        return 1
    return 0
