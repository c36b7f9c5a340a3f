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
    this.label.textContent = "latency";
    for (const name of Object.keys(this.fields)) this.#set(name, name === "governor" ? "waiting" : "–");
    this.#draw();
  }

  /** A `stats` event. */
  show(stats) {
    this.#set("fps-in", stats.fps_in?.toFixed(1) ?? "–");
    this.#set("fps-out", stats.fps_out?.toFixed(1) ?? "–");
    const share = stats.on_time ?? null;
    this.#set("on-time", share === null ? "–" : `${(100 * share).toFixed(share < 0.9995 ? 1 : 0)} %`, share !== null && share < 0.9);
    const [words, warn] = governorWords(stats);
    this.#set("governor", words, warn);
  }

  /** A measured latency in milliseconds; `from`: where the measuring began, in a word. */
  latency(value, from) {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
    this.#set("latency", `${Math.round(this.#medianOf(5))} ms`);
    this.label.textContent = `${from} to screen`;
    this.#draw();
  }

  /** The median of the last measurements; null before the first. */
  get median() {
    return this.#medianOf(9);
  }

  #medianOf(count) {
    const sorted = this.#values.slice(-count).sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  #set(name, text, warn = false) {
    const field = this.fields[name];
    if (field.textContent !== text) field.textContent = text;
    field.classList.toggle("warn", warn);
  }

  #draw() {
    const scale = devicePixelRatio;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    if (this.#values.length < 2 || !width) return;
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const colour = getComputedStyle(this.canvas).getPropertyValue("--cut");
    const most = Math.max(150, ...this.#values) * 1.15;
    const at = (index) => [
      width - 4 - (this.#values.length - 1 - index) * ((width - 8) / (POINTS - 1)),
      height - 3 - (this.#values[index] / most) * (height - 8),
    ];
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    this.#values.forEach((_, index) => context.lineTo(...at(index)));
    context.stroke();
    context.beginPath();
    context.arc(...at(this.#values.length - 1), 3, 0, 7);
    context.fill();
  }
}

/** What the governor is doing, and whether it is cause for concern. */
export function governorWords(stats) {
  const restarts = stats.worker_restarts ? `; filter restarted ${stats.worker_restarts}×` : "";
  if (stats.showing === "slate") return ["slate, waiting for a picture", false];
  if (stats.rung === null) return ["no filter, picture as it is", false];
  if (!stats.filter_ready) return [`filter is starting${restarts}`, true];
  if (stats.showing === "source") return [`showing source, filter too late${restarts}`, true];
  if (stats.showing === "held") return [`holding last picture${restarts}`, true];
  const size = /^size-(\d+)$/.exec(stats.rung);
  if (size) return [`smaller picture, ${size[1]} %${restarts}`, true];
  const cheaper = /^cheaper-(\d+)$/.exec(stats.rung);
  if (cheaper) return [`cheaper drawing, level ${cheaper[1]}${restarts}`, true];
  return [`full quality${restarts}`, false];
}
