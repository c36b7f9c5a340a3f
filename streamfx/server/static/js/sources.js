// What this page sends: a camera with a microphone, a microphone alone, or a file.

/** A sentence for what went wrong with a camera. */
export function cameraProblem(error) {
  const sentences = {
    NotAllowedError: "The camera was refused. Allow it in the address bar and try again, or send a file.",
    NotFoundError: "There is no camera here. Plug one in, or send a file.",
    NotReadableError: "Another program holds the camera. Close it and try again.",
    OverconstrainedError: "This camera has no such picture size. Choose another one.",
  };
  if (!navigator.mediaDevices) return "Browsers give the camera to https pages only. Open this page by https, or on the machine itself.";
  return sentences[error.name] ?? `The camera could not be opened (${error.message}).`;
}

/** Camera and microphone. `camera`, `microphone`: device ids, "" for the usual one, "none" for no sound. */
export async function openCamera({ camera, microphone, size }) {
  if (!navigator.mediaDevices) throw new Error("no access");
  const [width, height] = size.split("x").map(Number);
  const video = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 } };
  if (camera) video.deviceId = { exact: camera };
  const audio = microphone === "none" ? false : microphone ? { deviceId: { exact: microphone } } : true;
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    // Many machines have a camera and no microphone.
    if (!audio || error.name !== "NotFoundError") throw error;
    stream = await navigator.mediaDevices.getUserMedia({ video });
  }
  return { stream, kind: "camera", close: () => stream.getTracks().forEach((track) => track.stop()) };
}

/** A sentence for what went wrong with a microphone. */
export function microphoneProblem(error) {
  const sentences = {
    NotAllowedError: "The microphone was refused. Allow it in the address bar and try again, or send a file.",
    NotFoundError: "There is no microphone here. Plug one in, or send a file.",
    NotReadableError: "Another program holds the microphone. Close it and try again.",
  };
  if (!navigator.mediaDevices) return "Browsers give the microphone to https pages only. Open this page by https, or on the machine itself.";
  return sentences[error.name] ?? error.message;
}

/** A microphone alone. `microphone`: its device id, "" for the usual one. */
export async function openMicrophone(microphone) {
  if (!navigator.mediaDevices) throw new Error("no access");
  const audio = microphone && microphone !== "none" ? { deviceId: { exact: microphone } } : true;
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return { stream, kind: "microphone", close: () => stream.getTracks().forEach((track) => track.stop()) };
}

/** Fills the device lists; names are known only once access was given. */
export async function listDevices(cameraPick, microphonePick) {
  if (!navigator.mediaDevices) return;
  const devices = await navigator.mediaDevices.enumerateDevices();
  fill(cameraPick, devices.filter((one) => one.kind === "videoinput"), "Camera");
  fill(microphonePick, devices.filter((one) => one.kind === "audioinput"), "Microphone");
}

function fill(pick, devices, name) {
  const chosen = pick.value;
  for (const old of pick.querySelectorAll("[data-device]")) old.remove();
  devices.forEach((device, index) => {
    if (!device.deviceId) return;
    const option = new Option(device.label || `${name} ${index + 1}`, device.deviceId);
    option.dataset.device = "";
    pick.add(option);
  });
  pick.value = [...pick.options].some((option) => option.value === chosen) ? chosen : "";
}

/** A video or sound file, played in a loop as if it were a camera or a microphone. */
export async function openFile(file) {
  const player = document.createElement("video");
  player.src = URL.createObjectURL(file);
  player.loop = true;
  player.playsInline = true;
  const close = () => {
    player.pause();
    URL.revokeObjectURL(player.src);
    stream?.getTracks().forEach((track) => track.stop());
    sound?.close();
  };
  let stream = null;
  let sound = null;
  try {
    await player.play();
    stream = player.captureStream?.() ?? player.mozCaptureStream?.() ?? paint(player);
    if (stream.getAudioTracks().length) stream = new MediaStream([...stream.getVideoTracks(), ...(sound = unheard(player)).tracks]);
    return { stream, kind: "file", close };
  } catch (error) {
    close();
    throw new Error(`This browser cannot play ${file.name}. Choose an MP4 or WebM file, or sound as MP3 or WAV.`, { cause: error });
  }
}

/** The sound, taken from the player so that it is not heard here: the result brings it along. */
function unheard(player) {
  const context = new AudioContext();
  const target = context.createMediaStreamDestination();
  context.createMediaElementSource(player).connect(target);
  context.resume();
  return { tracks: target.stream.getAudioTracks(), close: () => context.close() };
}

/** For browsers without captureStream of a video: paint it. */
function paint(player) {
  const canvas = document.createElement("canvas");
  canvas.width = player.videoWidth;
  canvas.height = player.videoHeight;
  const context = canvas.getContext("2d");
  const draw = () => {
    if (player.paused) return;
    context.drawImage(player, 0, 0);
    requestAnimationFrame(draw);
  };
  draw();
  return canvas.captureStream(30);
}

/** Files that are dropped on `area`. */
export function acceptDrops(area, onFile) {
  area.addEventListener("dragover", (event) => event.preventDefault());
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = [...event.dataTransfer.files].find((one) => /^(video|audio)\//.test(one.type));
    if (file) onFile(file);
  });
}
