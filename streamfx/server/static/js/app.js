// The page: brings the parts together.

import { call, onTokenNeeded, takeTokenFromAddress } from "./api.js";
import { Controls } from "./controls.js";
import { listen } from "./events.js";
import { FilterList } from "./filters.js";
import { LatencyMeter } from "./latency.js";
import { Meter } from "./meter.js";
import { Outputs } from "./outputs.js";
import { hold, Link } from "./peer.js";
import { Recorder, savePicture } from "./record.js";
import { fillBoxes, setUpBoxes } from "./share.js";
import { acceptDrops, cameraProblem, listDevices, microphoneProblem, openCamera, openFile, openMicrophone } from "./sources.js";
import { Stage } from "./stage.js";
import { askForToken } from "./token.js";

const byId = (id) => document.getElementById(id);
const session = encodeURIComponent(new URLSearchParams(location.search).get("session") ?? "live");

const stage = new Stage();
const meter = new Meter();
const controls = new Controls();
const outputs = new Outputs();
const latency = new LatencyMeter((value, fromCapture) => {
  meter.latency(value, fromCapture ? (source?.kind ?? "camera") : "server");
  stage.delayed.delay = meter.median ?? 0;
});
const filters = new FilterList((filter, params) => controls.build(session, filter, params), mention);
const recorder = new Recorder(byId("record"), () => stage.after.srcObject, mention);
const link = new Link({ live: connected, lost: () => hold(stage.after), state: linkState });

let source = null; // what this page sends, null while it watches
let known = null; // the newest SESSION
let linkNow = "off"; // the link's state
let starting = false;
let away = false; // the server does not answer
let stopListening = () => {};

let lasting = "Choose what to send.";
let passing = null;

function say(text) {
  clearTimeout(passing);
  byId("status").textContent = lasting = text;
}

/** Says something of passing interest. */
function mention(text) {
  clearTimeout(passing);
  byId("status").textContent = text;
  passing = setTimeout(() => say(lasting), 6000);
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function start(open) {
  if (starting) return; // the browser is asking for the camera
  complain("");
  starting = true;
  let opened = null;
  try {
    opened = await open();
    if (opened && !hasPicture(opened)) await filters.hear();
    go(opened);
  } catch (error) {
    opened?.close();
    complain(open.explain ? open.explain(error) : error.message);
  } finally {
    starting = false;
  }
}

function hasPicture({ stream }) {
  return stream.getVideoTracks().length > 0;
}

function go(opened) {
  source = opened;
  latency.restart(Boolean(source));
  stage.mode = source && hasPicture(source) ? "both" : "after";
  if (source && hasPicture(source)) stage.showSource(source.stream);
  setSound(!["camera", "microphone"].includes(source?.kind)); // a microphone would hear it
  byId("toolbar").hidden = false;
  byId("devices").hidden = true;
  byId("stop").focus({ preventScroll: true, focusVisible: false });
  if (source && source.kind !== "file") showDevices();
  link.start({
    path: source ? `/whip/${session}` : `/whep/${session}`,
    stream: source?.stream ?? null,
    iceServers: known?.ice_servers ?? [],
  });
  // What is unplugged ends its track.
  const track = source && (source.stream.getVideoTracks()[0] ?? source.stream.getAudioTracks()[0]);
  track?.addEventListener("ended", () => {
    if (source !== opened) return;
    stop();
    complain(opened.kind === "file" ? "The file ended. Choose one again." : `The ${opened.kind} is gone. Plug it in again, or send a file.`);
  });
}

function stop() {
  recorder.stop();
  link.stop();
  source?.close();
  source = null;
  if (document.fullscreenElement) document.exitFullscreen();
  stage.mode = "empty";
  byId("toolbar").hidden = true;
  byId("devices").hidden = false;
  byId("start-camera").focus({ preventScroll: true, focusVisible: false });
  meter.clear();
  subscribe(null);
}

function connected(peer) {
  stage.showResult(peer.stream);
  latency.restart(Boolean(source));
  latency.watch(stage.after);
  latency.synchronise().catch(() => {});
  subscribe(peer.id);
}

const LINK_WORDS = {
  connecting: ["Connecting …", "Connecting"],
  live: ["Live.", "Live"],
  retrying: ["The connection was lost. Trying again …", "Reconnecting"],
  off: ["Choose what to send.", ""],
};

function linkState(state, error, pause = 0) {
  if (state === "refused") {
    stop();
    complain(error.message);
    return;
  }
  const again = linkNow === "retrying" && state === "connecting";
  linkNow = document.body.dataset.link = again ? "retrying" : state;
  if (!again) say(error?.message && state === "retrying" ? `${LINK_WORDS.retrying[0]} (${error.message})` : LINK_WORDS[state][0]);
  const soon = pause >= 1500 ? ` in ${Math.round(pause / 1000)} s` : "";
  notice({ connecting: again ? "Reconnecting …" : "Connecting …", retrying: `Connection lost, trying again${soon}` }[state]);
  showTitle();
}

/** What keeps the picture from being live, in the picture. */
function notice(text) {
  byId("notice").textContent = text ?? "";
  byId("notice").hidden = !text;
}

function showTitle() {
  const word = LINK_WORDS[linkNow][1];
  const filter = linkNow === "live" && known?.filter ? `: ${known.filter.name}` : "";
  document.title = word ? `${linkNow === "live" ? "● " : ""}${word}${filter} – streamfx` : "streamfx";
}

function setSound(on) {
  stage.after.muted = !on;
  byId("sound").setAttribute("aria-pressed", String(on));
  byId("volume").style.setProperty("--fill", on ? `${stage.after.volume * 100}%` : "0%");
  byId("sound").querySelector("use").setAttribute("href", `/static/img/icons.svg#${on ? "sound-on" : "muted"}`);
}

async function showSession(now) {
  known = now;
  if (away) {
    away = false;
    complain("");
    if (linkNow === "off") say(LINK_WORDS.off[0]);
  }
  try {
    await filters.load(session);
  } catch (error) {
    complain(error.message);
  }
  byId("start-microphone").hidden = !filters.canHear;
  fillBoxes(known);
  filters.show(known.filter);
  controls.update(known.filter?.params ?? {});
  outputs.show(known.outputs);
  showViewers(known);
  showTitle();
  byId("session-name").textContent = known.id === "live" ? "" : known.id;
}

function showViewers({ viewers }) {
  byId("viewer-count").textContent = viewers ? `${viewers} ${viewers === 1 ? "viewer" : "viewers"}` : "";
}

function eventsFailed(error) {
  if (error.status === 404 && linkNow === "off") complain(error.message);
  if (error.status !== 0) return;
  away = true;
  if (linkNow === "off") say("The server does not answer. Trying again …");
}

/** Listens to the session's events; `peer`: whose frames are to be marked, for the latency. */
function subscribe(peer) {
  stopListening();
  stopListening = listen(() => `/sessions/${session}/events${peer ? `?peer=${encodeURIComponent(peer)}` : ""}`, {
    session: showSession,
    params: (params) => controls.update(params),
    stats: (stats) => link.peer && meter.show(stats),
    mark: (mark) => latency.mark(mark),
    output: (output) => outputs.update(output),
    viewers: showViewers,
    filter: ({ text }) => !/^(ready|switched)/.test(text) && mention(`Filter: ${text}`),
    error: eventsFailed,
  });
}

function showDevices() {
  return listDevices(byId("camera-pick"), byId("microphone-pick")).catch(() => {});
}

function wireButtons() {
  const camera = () =>
    openCamera({ camera: byId("camera-pick").value, microphone: byId("microphone-pick").value, size: byId("quality-pick").value });
  camera.explain = cameraProblem;
  const microphone = () => openMicrophone(byId("microphone-pick").value);
  microphone.explain = microphoneProblem;
  const sendFile = (file) => start(() => openFile(file));
  byId("start-camera").addEventListener("click", () => start(camera));
  byId("start-microphone").addEventListener("click", () => start(microphone));
  byId("start-file").addEventListener("click", () => byId("file-pick").click());
  byId("file-pick").addEventListener("change", ({ target }) => {
    const file = target.files[0];
    target.value = "";
    if (file) sendFile(file);
  });
  acceptDrops(stage.box, (file) => linkNow === "off" && sendFile(file));
  byId("start-watch").addEventListener("click", () => start(async () => null));
  byId("stop").addEventListener("click", stop);
  byId("snapshot").addEventListener("click", () => savePicture(stage.after));
  byId("sound").addEventListener("click", () => setSound(stage.after.muted));
  byId("volume").addEventListener("input", ({ target }) => {
    stage.after.volume = Number(target.value);
    setSound(Number(target.value) > 0);
  });
  byId("fullscreen").addEventListener("click", () => stage.fullScreen());
  navigator.mediaDevices?.addEventListener("devicechange", showDevices);
}

function main() {
  takeTokenFromAddress();
  onTokenNeeded(askForToken);
  wireButtons();
  setUpBoxes(mention);
  latency.session = outputs.session = session;
  subscribe(null); // its first event is the session, with which everything is filled
  call("GET", `/sessions/${session}`).then(showSession, (error) => error.status === 0 || complain(error.message));
  showDevices();
}

main();
