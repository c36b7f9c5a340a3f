// Boxes with addresses to copy.

import { token } from "./api.js";

/** Fills the boxes from a session. */
export function fillBoxes(session) {
  const put = (id, value) => (document.getElementById(id).value = value ?? "");
  const here = location.origin;
  put("copy-whip", session.ingest.whip && here + session.ingest.whip);
  put("copy-whep", here + session.play.whep);
  put("copy-view", here + session.play.view);
  const rtmp = session.ingest.rtmp;
  document.getElementById("rtmp-boxes").hidden = !rtmp;
  put("copy-rtmp-url", rtmp?.url);
  put("copy-rtmp-key", rtmp?.key);
  document.getElementById("token-hint").hidden = !token();
}

/** `say(text)`: tells people who do not see the button change. */
export function setUpBoxes(say) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button, document.getElementById(button.dataset.copy), say));
  }
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      const input = document.getElementById(button.dataset.show);
      const show = input.type === "password";
      input.type = show ? "text" : "password";
      button.textContent = show ? "Hide" : "Show";
      button.setAttribute("aria-label", `${button.textContent} stream key`);
    });
  }
}

async function copy(button, input, say) {
  // The bare player has nobody to type a token in; the box itself does not show it.
  const secret = input.id === "copy-view" && token() ? `#token=${encodeURIComponent(token())}` : "";
  const done = await toClipboard(input.value + secret);
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  if (!done) input.select();
  say(done ? "Copied." : "The browser does not let this page copy. The text is selected: press Ctrl+C.");
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http has no clipboard; the old way still works there.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
