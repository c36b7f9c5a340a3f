// The picture: before and after in one frame, with a border that can be dragged.

import { DelayedPicture } from "./delayed.js";

export class Stage {
  #share = 50;

  constructor() {
    this.box = document.getElementById("stage");
    this.after = document.getElementById("after");
    this.before = document.getElementById("before");
    this.divider = document.getElementById("divider");
    this.clip = document.getElementById("before-clip");
    this.delayed = new DelayedPicture(this.before, document.getElementById("before-canvas"));
    this.#drag();
    this.after.addEventListener("resize", () => this.#fit());
    this.box.addEventListener("dblclick", (event) => event.target !== this.divider && this.fullScreen());
    this.#move(50);
  }

  /** `mode`: "empty", "both" (before and after), "after". */
  set mode(mode) {
    this.box.dataset.mode = mode;
    if (mode === "empty") {
      this.after.srcObject = this.before.srcObject = null;
      this.box.style.aspectRatio = "";
      this.delayed.stop();
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
  #fit() {
    const { videoWidth: width, videoHeight: height } = this.after;
    if (width && height) this.box.style.aspectRatio = `${width} / ${height}`;
    this.box.style.maxWidth = width && height ? `calc(72vh * ${width / height})` : "";
    this.box.style.marginInline = "auto";
  }

  #move(share) {
    this.#share = Math.min(100, Math.max(0, share));
    this.clip.style.clipPath = `inset(0 ${100 - this.#share}% 0 0)`;
    this.divider.style.left = `${this.#share}%`;
    this.divider.setAttribute("aria-valuenow", Math.round(this.#share));
    this.divider.setAttribute("aria-valuetext", `${Math.round(this.#share)} percent before`);
  }

  #drag() {
    const follow = (event) => {
      const box = this.box.getBoundingClientRect();
      this.#move(((event.clientX - box.left) / box.width) * 100);
    };
    this.divider.addEventListener("pointerdown", (event) => {
      this.divider.setPointerCapture(event.pointerId);
      this.divider.addEventListener("pointermove", follow);
      event.preventDefault();
      this.divider.focus();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.divider.addEventListener(end, () => this.divider.removeEventListener("pointermove", follow));
    }
    this.divider.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.#move(this.#share + steps[event.key]);
    });
  }
}
