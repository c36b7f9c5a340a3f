// The page: brings the parts together.

import { call, onTokenNeeded, takeTokenFromAddress } from "./api.js";
import { Controls } from "./controls.js";
import { listen } from "./events.js";
import { FilterList } from "./filters.js";
import { LatencyMeter } from "./latency.js";
import { Meter } from "./meter.js";
import { Outputs } from "./outputs.js";
import { Link } from "./peer.js";
import { Recorder, savePicture } from "./record.js";
import { fillBoxes, setUpBoxes } from "./share.js";
import { cameraProblem, listDevices, openCamera, openFile } from "./sources.js";
import { Stage } from "./stage.js";
import { askForToken } from "./token.js";

const byId = (id) => document.getElementById(id);
const session = new URLSearchParams(location.search).get("session") ?? "live";

const stage = new Stage();
const meter = new Meter();
const controls = new Controls();
const outputs = new Outputs();
const latency = new LatencyMeter((value, fromCapture) => {
  meter.latency(value, fromCapture);
  stage.delayed.delay = meter.median ?? 0;
});
const filters = new FilterList((filter, params) => controls.build(session, filter, params), say);
const recorder = new Recorder(byId("record"), () => stage.after.srcObject);
const link = new Link({ live: connected, state: linkState });

let source = null; // what this page sends, null while it watches
let known = null; // the newest SESSION
let stopListening = () => {};

function say(text) {
  byId("status").textContent = text;
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function start(open) {
  complain("");
  let opened = null;
  try {
    opened = await open();
  } catch (error) {
    complain(open.explain ? open.explain(error) : error.message);
    return;
  }
  if (opened?.kind === "camera") listDevices(byId("camera-pick"), byId("microphone-pick"));
  go(opened);
}

function go(opened) {
  source = opened;
  latency.publishing = Boolean(source);
  latency.clear();
  stage.mode = source ? "both" : "after";
  if (source) stage.showSource(source.stream);
  setSound(!source);
  byId("toolbar").hidden = false;
  link.start({
    path: source ? `/whip/${session}` : `/whep/${session}`,
    stream: source?.stream ?? null,
    iceServers: known?.ice_servers ?? [],
  });
  // A camera that is unplugged ends its track.
  source?.stream.getVideoTracks()[0]?.addEventListener("ended", () => {
    if (!source) return;
    stop();
    complain("The camera is gone. Plug it in again, or send a file.");
  });
}

function stop() {
  recorder.stop();
  link.stop();
  source?.close();
  source = null;
  stage.mode = "empty";
  byId("toolbar").hidden = true;
  meter.clear();
  subscribe(null);
}

function connected(peer) {
  stage.showResult(peer.stream);
  latency.watch(stage.after);
  latency.synchronise().catch(() => {});
  subscribe(peer.id);
}

const LINK_WORDS = {
  connecting: "Connecting …",
  live: "Live.",
  retrying: "The connection was lost. Trying again …",
  off: "Choose what to send.",
};

function linkState(state, error) {
  document.body.dataset.link = state;
  document.title = state === "live" ? "● streamfx" : "streamfx";
  if (state === "refused") {
    stop();
    complain(error.message);
  }
  say(error?.message && state === "retrying" ? `${LINK_WORDS.retrying} (${error.message})` : (LINK_WORDS[state] ?? ""));
}

function setSound(on) {
  stage.after.muted = !on;
  byId("sound").setAttribute("aria-pressed", String(on));
  byId("sound").querySelector("use").setAttribute("href", `/static/img/icons.svg#${on ? "sound-on" : "muted"}`);
}

function showSession(now) {
  known = now;
  fillBoxes(now);
  filters.show(now.filter);
  outputs.show(now.outputs);
  showViewers(now);
  byId("session-name").textContent = now.id === "live" ? "" : now.id;
}

function showViewers({ viewers }) {
  byId("viewer-count").textContent = viewers === 1 ? "1 viewer" : `${viewers} viewers`;
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
    filter: ({ text }) => !/^(ready|switched)/.test(text) && say(`Filter: ${text}`),
    error: (error) => error.status === 404 && say(error.message),
  });
}

function wireButtons() {
  const camera = () =>
    openCamera({ camera: byId("camera-pick").value, microphone: byId("microphone-pick").value, size: byId("quality-pick").value });
  camera.explain = cameraProblem;
  byId("start-camera").addEventListener("click", () => start(camera));
  byId("start-file").addEventListener("click", () => byId("file-pick").click());
  byId("file-pick").addEventListener("change", ({ target }) => {
    const file = target.files[0];
    target.value = "";
    if (file) start(() => openFile(file));
  });
  byId("start-watch").addEventListener("click", () => start(async () => null));
  byId("stop").addEventListener("click", stop);
  byId("snapshot").addEventListener("click", () => savePicture(stage.after));
  byId("sound").addEventListener("click", () => setSound(stage.after.muted));
  byId("fullscreen").addEventListener("click", () => stage.fullScreen());
}

async function main() {
  takeTokenFromAddress();
  onTokenNeeded(askForToken);
  wireButtons();
  setUpBoxes();
  latency.session = outputs.session = session;
  try {
    await filters.load(session);
    showSession(await call("GET", `/sessions/${session}`));
  } catch (error) {
    complain(error.message);
  }
  subscribe(null);
  listDevices(byId("camera-pick"), byId("microphone-pick"));
}

main();
