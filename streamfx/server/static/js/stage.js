// The picture: before and after in one frame, with a border that can be dragged.

import { DelayedPicture } from "./delayed.js";

const KEYS = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };

export class Stage {
  #share = 50;

  constructor() {
    this.box = document.getElementById("stage");
    this.frame = document.getElementById("frame");
    this.after = document.getElementById("after");
    this.before = document.getElementById("before");
    this.divider = document.getElementById("divider");
    this.delayed = new DelayedPicture(this.before, document.getElementById("before-canvas"));
    this.#drag();
    this.after.addEventListener("resize", () => this.#fit(this.after));
    this.before.addEventListener("resize", () => this.after.videoWidth || this.#fit(this.before));
    this.box.addEventListener("dblclick", () => this.box.dataset.mode !== "empty" && this.fullScreen());
    this.#move(50);
  }

  /** `mode`: "empty", "both" (before and after), "after". */
  set mode(mode) {
    this.box.dataset.mode = mode;
    if (mode !== "both") {
      this.before.srcObject = null;
      this.delayed.stop();
    }
    if (mode === "empty") {
      this.after.srcObject = null;
      this.after.removeAttribute("poster");
      this.box.style.removeProperty("--ratio");
    }
  }

  showSource(stream) {
    // Its own muted copy: the microphone must not be heard here.
    this.before.srcObject = new MediaStream(stream.getVideoTracks());
    this.before.play().catch(() => {});
    this.delayed.start();
  }

  showResult(stream) {
    this.after.srcObject = stream;
    this.after.play().catch(() => {});
  }

  async fullScreen() {
    if (document.fullscreenElement) return document.exitFullscreen();
    if (this.box.requestFullscreen) return this.box.requestFullscreen();
    this.after.webkitEnterFullscreen?.(); // iPhone
  }

  /** The frame takes the picture's shape, so that the border runs from edge to edge of it. */
  #fit({ videoWidth: width, videoHeight: height }) {
    if (width && height && this.box.dataset.mode !== "empty") this.box.style.setProperty("--ratio", width / height);
  }

  #move(share) {
    this.#share = Math.min(100, Math.max(0, share));
    this.frame.style.setProperty("--at", `${this.#share}%`);
    this.divider.setAttribute("aria-valuenow", Math.round(this.#share));
    this.divider.setAttribute("aria-valuetext", `${Math.round(this.#share)} percent before`);
  }

  #drag() {
    const at = (event) => {
      const box = this.frame.getBoundingClientRect();
      return ((event.clientX - box.left) / box.width) * 100;
    };
    let held = null; // where it was taken hold of, and how far from the border
    this.frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.box.dataset.mode === "after") return;
      const onBorder = event.target === this.divider;
      // Anywhere in the picture will do, but a mere click must not make the border jump: it may be half a double click.
      held = { x: event.clientX, off: onBorder ? at(event) - this.#share : 0, moved: onBorder };
      this.frame.setPointerCapture(event.pointerId);
      event.preventDefault();
      this.divider.focus({ preventScroll: true, focusVisible: false });
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (held === null) return;
      held.moved ||= Math.abs(event.clientX - held.x) > 4;
      if (held.moved) this.#move(at(event) - held.off);
    });
    for (const end of ["pointerup", "pointercancel"]) this.frame.addEventListener(end, () => (held = null));
    this.divider.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS)) return;
      event.preventDefault();
      this.#move(this.#share + KEYS[event.key]);
    });
  }
}
