// Latency from capture to glass: which frame is shown when, against when the server says it was captured.

import { call } from "./api.js";

const REMEMBERED = 600;
const REPORT_EVERY = 5000;
const SYNCHRONISE_EVERY = 120_000;

export class LatencyMeter {
  #shown = new Map();
  #marks = [];
  #offset = null;
  #unreported = [];
  #video = null;

  /** `onValue(ms, fromCapture)`: a new measurement; `fromCapture` is false if it starts at the server only. */
  constructor(onValue) {
    this.onValue = onValue;
    this.publishing = false;
    this.session = null;
    setInterval(() => this.#report(), REPORT_EVERY);
    // Clocks drift apart, a few milliseconds an hour.
    setInterval(() => this.#video && !document.hidden && this.synchronise().catch(() => {}), SYNCHRONISE_EVERY);
  }

  /** `publishing`: whether marks tell when this page captured. */
  restart(publishing) {
    this.publishing = publishing;
    this.#shown.clear();
    this.#marks = [];
  }

  watch(video) {
    if (this.#video === video || !video.requestVideoFrameCallback) return;
    this.#video = video;
    const note = (now, metadata) => {
      if (metadata.rtpTimestamp !== undefined) {
        this.#shown.set(metadata.rtpTimestamp, performance.timeOrigin + metadata.expectedDisplayTime);
        if (this.#shown.size > REMEMBERED) this.#shown.delete(this.#shown.keys().next().value);
        this.#match();
      }
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
  }

  /** A mark from the server: {rtp, captured_ms, received_ms}. The frame may be yet to be shown. */
  mark(mark) {
    this.#marks.push(mark);
    if (this.#marks.length > 8) this.#marks.shift();
    this.#match();
  }

  #match() {
    this.#marks = this.#marks.filter((mark) => {
      const shown = this.#shown.get(mark.rtp);
      if (shown === undefined) return true;
      this.#measured(shown, mark);
      return false;
    });
  }

  #measured(shown, mark) {
    const fromCapture = this.publishing && mark.captured_ms !== null;
    if (!fromCapture && this.#offset === null) return;
    const start = fromCapture ? mark.captured_ms : mark.received_ms - this.#offset;
    const value = shown - start;
    if (value < 0 || value > 60_000) return; // clocks that disagree measure nothing
    if (fromCapture) this.#unreported.push(value);
    this.onValue(value, fromCapture);
  }

  /** Learns how far the server's clock is from ours: the quickest of a few questions tells best (Cristian 1989). */
  async synchronise() {
    let best = Infinity;
    for (let n = 0; n < 6; n += 1) {
      const asked = performance.timeOrigin + performance.now();
      const { now_ms: server } = await call("GET", "/clock");
      const answered = performance.timeOrigin + performance.now();
      if (answered - asked < best) {
        best = answered - asked;
        this.#offset = server - (asked + answered) / 2;
      }
    }
  }

  #report() {
    const values = this.#unreported.splice(0).slice(-64);
    if (values.length && this.session) call("POST", `/sessions/${this.session}/latency`, { milliseconds: values }).catch(() => {});
  }
}
