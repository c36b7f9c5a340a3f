// Boxes with addresses to copy.

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
}

export function setUpBoxes() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button, document.getElementById(button.dataset.copy)));
  }
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      const input = document.getElementById(button.dataset.show);
      const show = input.type === "password";
      input.type = show ? "text" : "password";
      button.setAttribute("aria-pressed", String(show));
      button.textContent = show ? "Hide" : "Show";
    });
  }
}

async function copy(button, input) {
  try {
    await navigator.clipboard.writeText(input.value);
  } catch {
    input.type = "text"; // without the clipboard (plain http), select it for the user
    input.select();
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
