// The source picture, as late as the result: so that both halves of a moving picture meet at the border.

const MOST = 24;
const MOST_DELAY = 700;
const HEIGHT = 720;

export class DelayedPicture {
  #frames = [];
  #running = false;
  #busy = false;

  constructor(video, canvas) {
    this.video = video;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    /** Milliseconds by which the result is behind. */
    this.delay = 0;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#draw();
    this.#take();
  }

  stop() {
    this.#running = false;
    for (const frame of this.#frames.splice(0)) frame.bitmap.close();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #next(callback) {
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(callback);
    else setTimeout(callback, 33);
  }

  #take() {
    if (!this.#running) return;
    this.#next(async () => {
      if (!this.#busy && this.video.videoWidth && !document.hidden) {
        this.#busy = true;
        const at = performance.now();
        try {
          const smaller = this.video.videoHeight > HEIGHT ? { resizeHeight: HEIGHT, resizeQuality: "medium" } : {};
          const bitmap = await createImageBitmap(this.video, smaller);
          if (this.#running) this.#frames.push({ at, bitmap });
          else bitmap.close();
        } catch { /* a frame that cannot be copied is left out */ }
        this.#busy = false;
        while (this.#frames.length > MOST) this.#frames.shift().bitmap.close();
      }
      this.#take();
    });
  }

  #draw() {
    if (!this.#running) return;
    const due = performance.now() - Math.min(MOST_DELAY, this.delay);
    while (this.#frames.length > 1 && this.#frames[1].at <= due) this.#frames.shift().bitmap.close();
    const bitmap = this.#frames[0]?.bitmap;
    if (bitmap) {
      if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
        this.canvas.width = bitmap.width;
        this.canvas.height = bitmap.height;
      }
      this.context.drawImage(bitmap, 0, 0);
    }
    requestAnimationFrame(() => this.#draw());
  }
}
