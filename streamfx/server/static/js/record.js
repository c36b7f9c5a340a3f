// Recording and pictures of the result, made in the browser and saved as files.

const TYPES = ["video/mp4;codecs=avc1.42E01E,mp4a.40.2", "video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus", "video/webm"];

export class Recorder {
  #recorder = null;
  #timer = null;

  /** `streamOf()`: what to record at the moment. */
  constructor(button, streamOf, onProblem) {
    this.button = button;
    this.label = button.querySelector("span");
    this.streamOf = streamOf;
    this.onProblem = onProblem;
    button.addEventListener("click", () => (this.#recorder ? this.stop() : this.#start()));
    button.hidden = !window.MediaRecorder;
  }

  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }

  #start() {
    const stream = this.streamOf();
    if (!stream) return;
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    let recorder;
    try {
      recorder = this.#recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 6_000_000 });
    } catch {
      return this.onProblem("This browser cannot record the picture.");
    }
    const parts = [];
    const began = Date.now();
    recorder.ondataavailable = ({ data }) => data.size && parts.push(data);
    recorder.onstop = () => {
      clearInterval(this.#timer);
      this.#recorder = null;
      this.#show(null);
      save(new Blob(parts, { type: recorder.mimeType }), recorder.mimeType.includes("mp4") ? "mp4" : "webm");
    };
    recorder.start(1000);
    this.#show(0);
    this.#timer = setInterval(() => this.#show(Math.floor((Date.now() - began) / 1000)), 500);
  }

  #show(seconds) {
    this.button.setAttribute("aria-pressed", String(seconds !== null));
    this.button.setAttribute("aria-label", seconds === null ? "Record" : "Stop recording and save it");
    this.label.textContent = seconds === null ? "Record" : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
}

/** Saves the picture that is shown. */
export function savePicture(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  if (!canvas.width) return;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => blob && save(blob, "png"));
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `streamfx-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
