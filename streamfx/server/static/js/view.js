// The bare player, for OBS's Browser source: the picture and nothing else, for ever.

import { onTokenNeeded, request, takeTokenFromAddress, ApiError } from "./api.js";
import { hold, Link } from "./peer.js";

const video = document.getElementById("after");
const session = decodeURIComponent(location.pathname.split("/")[2] ?? "live");
const options = new URLSearchParams(location.search);

takeTokenFromAddress();
// Nobody is there to type one.
onTokenNeeded(() => Promise.reject(new ApiError(401, "add #token=... to the address")));

video.muted = options.get("audio") !== "1";
video.classList.toggle("cover", options.get("fit") === "cover");
video.addEventListener("playing", () => video.classList.add("live"));

async function iceServers() {
  try {
    return (await (await request(`/sessions/${encodeURIComponent(session)}`)).json()).ice_servers;
  } catch {
    return [];
  }
}

const link = new Link({
  live: (peer) => {
    video.srcObject = peer.stream;
    video.play().catch(() => {
      video.muted = true; // a browser that forbids sound still shows the picture
      video.play().catch(() => {});
    });
  },
  lost: () => hold(video),
  state: (state) => {
    document.title = `streamfx ${session}: ${state}`;
    if (state === "refused") setTimeout(start, 3000); // the session may come (back)
  },
});

async function start() {
  link.start({ path: `/whep/${encodeURIComponent(session)}`, stream: null, iceServers: await iceServers() });
}

start();
