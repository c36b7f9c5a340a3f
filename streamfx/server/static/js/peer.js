// One WHIP or WHEP connection (RFC 9725, draft-ietf-wish-whep), and a link that keeps one alive.

import { ApiError, farewell, request } from "./api.js";

const SDP = "application/sdp";
const FRAGMENT = "application/trickle-ice-sdpfrag";
const GATHER_PAUSE = 150;
const LOST_AFTER = 4000;
const MAX_BITRATE = 4_000_000;

/** Connects. `stream`: what to send (null: watch). Resolves with {connection, stream, id, close} once answered. */
export async function connect({ path, stream, iceServers, signal }) {
  const connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
  const result = new MediaStream();
  connection.ontrack = ({ track }) => result.addTrack(track);
  for (const kind of ["video", "audio"]) {
    const track = stream?.getTracks().find((one) => one.kind === kind);
    const init = { direction: track ? "sendrecv" : "recvonly", streams: stream ? [stream] : [] };
    if (kind === "video" && track) init.sendEncodings = [{ maxBitrate: MAX_BITRATE }];
    connection.addTransceiver(track ?? kind, init);
  }
  let resource = null;
  try {
    const candidates = trickler(connection);
    await connection.setLocalDescription();
    await keepResolution(connection);
    const response = await request(path, {
      method: "POST",
      headers: { "Content-Type": SDP },
      body: connection.localDescription.sdp,
      signal,
    });
    resource = response.headers.get("Location");
    candidates.to(resource, response.headers.get("ETag"));
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  } catch (error) {
    connection.close();
    if (resource) farewell(resource);
    throw error;
  }
  let closed = false;
  const close = () => {
    if (closed) return;
    closed = true;
    connection.onconnectionstatechange = null;
    // The server is told first: of a connection that just closes, it would have forgotten what is to be deleted.
    farewell(resource).then(() => connection.close());
  };
  return { connection, stream: result, id: resource.split("/").pop(), close };
}

/** Keeps the last picture in sight: browsers show black once a stream's tracks have ended. */
export function hold(video) {
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  video.poster = canvas.toDataURL("image/jpeg");
  video.srcObject = null;
}

/** A soft picture is worse than a slower one: keep the size when the network is tight. */
async function keepResolution(connection) {
  for (const sender of connection.getSenders()) {
    if (sender.track?.kind !== "video") continue;
    sender.track.contentHint = "motion";
    const parameters = sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    await sender.setParameters(parameters).catch(() => {});
  }
}

/** Gathers candidates from now on and sends them in small batches once it is known where to. */
function trickler(connection) {
  const waiting = [];
  let target = null;
  let timer = null;
  const send = () => {
    timer = null;
    if (!target || !waiting.length || connection.signalingState === "closed") return;
    const lines = [`a=ice-ufrag:${target.ufrag}`];
    for (const candidate of waiting.splice(0)) {
      lines.push(`m=${target.kinds[candidate.sdpMLineIndex] ?? "video"} 9 UDP/TLS/RTP/SAVPF 0`);
      lines.push(`a=mid:${candidate.sdpMid}`, `a=${candidate.candidate}`);
    }
    const headers = { "Content-Type": FRAGMENT, "If-Match": target.etag };
    const body = `${lines.join("\r\n")}\r\n`;
    // The server's own candidates are in its answer: a connection may come about without ours.
    request(target.resource, { method: "PATCH", headers, body, quiet: true }).catch(() => {});
  };
  connection.onicecandidate = ({ candidate }) => {
    if (!candidate?.candidate) return;
    waiting.push(candidate);
    timer ??= setTimeout(send, GATHER_PAUSE);
  };
  return {
    to(resource, etag) {
      const sdp = connection.localDescription.sdp;
      const ufrag = /a=ice-ufrag:(\S+)/.exec(sdp)?.[1];
      target = { resource, etag, ufrag, kinds: [...sdp.matchAll(/^m=(\w+)/gm)].map((match) => match[1]) };
      send();
    },
  };
}

/** Keeps a connection: joins again, with growing pauses, until `stop`. */
export class Link {
  #wanted = null;
  #abort = null;
  #peer = null;
  #wake = null;

  /** `on`: {live(peer), lost() (its stream is about to end), state(name, error, pause)}; states: connecting, live, retrying (in `pause` ms), refused, off. */
  constructor(on) {
    this.on = on;
    addEventListener("pagehide", () => this.#peer?.close());
    // A page that comes back from the browser's memory has a connection that is closed and does not say so.
    addEventListener("pageshow", ({ persisted }) => persisted && this.#wanted && this.start(this.#wanted));
    addEventListener("online", () => this.#wake?.());
  }

  get peer() {
    return this.#peer;
  }

  start(options) {
    this.stop();
    this.#wanted = options;
    this.#abort = new AbortController();
    this.#run(options, this.#abort.signal);
  }

  stop() {
    this.#abort?.abort();
    this.#peer?.close();
    this.#peer = this.#wanted = null;
    this.on.state("off");
  }

  async #run(options, signal) {
    let pause = 400;
    while (!signal.aborted) {
      this.on.state("connecting");
      let reason = null;
      try {
        const peer = await connect({ ...options, signal });
        if (signal.aborted) return peer.close();
        this.#peer = peer;
        this.on.live(peer);
        reason = await this.#untilLost(peer, signal, () => {
          pause = 400;
          this.on.state("live");
        });
        if (!signal.aborted) this.on.lost();
        peer.close();
        this.#peer = null;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && ![408, 425, 429].includes(error.status)) {
          this.on.state("refused", error);
          return;
        }
        reason = error;
        if (error.retryAfter) pause = Math.max(pause, error.retryAfter * 1000);
      }
      if (signal.aborted) return;
      const wait = pause * (0.8 + 0.4 * Math.random());
      this.on.state("retrying", reason, wait);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait);
      });
      pause = Math.min(8000, pause * 2);
    }
  }

  #untilLost({ connection }, signal, onLive) {
    return new Promise((resolve) => {
      let timer = null;
      const check = () => {
        const state = connection.connectionState;
        clearTimeout(timer);
        if (state === "connected") onLive();
        else if (state === "failed" || state === "closed") resolve(null);
        else if (state === "disconnected") timer = setTimeout(() => resolve(null), LOST_AFTER);
      };
      connection.onconnectionstatechange = check;
      signal.addEventListener("abort", () => resolve(null));
      check();
    });
  }
}
