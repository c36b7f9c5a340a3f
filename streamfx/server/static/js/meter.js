// The live meter: figures of the last seconds, in words where words say more.

const POINTS = 60;

export class Meter {
  #values = [];

  constructor() {
    this.fields = Object.fromEntries(
      [...document.querySelectorAll("#meter [data-meter]")].map((field) => [field.dataset.meter, field]),
    );
    this.label = document.getElementById("latency-label");
    this.canvas = document.getElementById("sparkline");
  }

  clear() {
    this.#values = [];
    for (const [name, field] of Object.entries(this.fields)) field.textContent = name === "governor" ? "waiting" : "–";
    this.#draw();
  }

  /** A `stats` event. */
  show(stats) {
    this.#set("fps-in", stats.fps_in.toFixed(1));
    this.#set("fps-out", stats.fps_out.toFixed(1));
    const share = stats.on_time;
    this.#set("on-time", share === null ? "–" : `${(100 * share).toFixed(share < 0.9995 ? 1 : 0)} %`, share !== null && share < 0.9);
    const [words, warn] = governorWords(stats);
    this.#set("governor", words, warn);
  }

  /** A measured latency in milliseconds. */
  latency(value, fromCapture) {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
    const recent = this.#values.slice(-5).sort((a, b) => a - b);
    this.#set("latency", `${Math.round(recent[recent.length >> 1])} ms`);
    this.label.textContent = fromCapture ? "camera to screen" : "server to screen";
    this.#draw();
  }

  /** The median of the last measurements; null before the first. */
  get median() {
    const sorted = this.#values.slice(-9).sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  #set(name, text, warn = false) {
    const field = this.fields[name];
    if (field.textContent !== text) field.textContent = text;
    field.classList.toggle("warn", warn);
  }

  #draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (this.#values.length < 2) return;
    const most = Math.max(200, ...this.#values) * 1.1;
    context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--cut");
    context.lineWidth = 1.5;
    context.beginPath();
    this.#values.forEach((value, index) => {
      const x = width - (this.#values.length - 1 - index) * (width / (POINTS - 1));
      context.lineTo(x, height - 2 - (value / most) * (height - 4));
    });
    context.stroke();
  }
}

/** What the governor is doing, and whether it is cause for concern. */
export function governorWords(stats) {
  const restarts = stats.worker_restarts ? `, filter restarted ${stats.worker_restarts}×` : "";
  if (stats.showing === "slate") return ["waiting for a picture", false];
  if (stats.rung === null) return ["no filter, picture as it is", false];
  if (!stats.filter_ready) return [`filter is starting${restarts}`, true];
  if (stats.showing === "source") return [`filter too late, showing the source${restarts}`, true];
  if (stats.showing === "held") return [`holding the last picture${restarts}`, true];
  const size = /^size-(\d+)$/.exec(stats.rung);
  if (size) return [`smaller picture, ${size[1]} %${restarts}`, true];
  const cheaper = /^cheaper-(\d+)$/.exec(stats.rung);
  if (cheaper) return [`cheaper drawing, level ${cheaper[1]}${restarts}`, true];
  return [`full quality${restarts}`, Boolean(restarts)];
}
