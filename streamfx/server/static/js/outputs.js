// Targets to push to: added and removed while the stream runs. Keys go to the server and are never shown again.

import { call } from "./api.js";

const WORDS = {
  waiting: "waits for a picture",
  connecting: "connecting",
  live: "live",
  retrying: "trying again",
  failed: "failed",
  closed: "ended",
};

export class Outputs {
  #rows = new Map();

  constructor() {
    this.list = document.getElementById("outputs");
    this.key = document.getElementById("output-key");
    this.url = document.getElementById("output-url");
    this.problem = document.getElementById("output-problem");
    this.presets = [...document.querySelectorAll("[data-preset]")];
    for (const button of this.presets) button.addEventListener("click", () => this.#choose(button));
    this.button = document.getElementById("add-output");
    this.button.addEventListener("click", () => this.#add());
    this.key.addEventListener("keydown", (event) => event.key === "Enter" && this.#add());
  }

  /** Every output there is. */
  show(outputs) {
    const there = new Set(outputs.map((output) => output.id));
    for (const [id, row] of this.#rows) {
      if (there.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    outputs.forEach((output) => this.update(output));
  }

  update(output) {
    let row = this.#rows.get(output.id);
    if (!row) {
      row = this.#row(output);
      this.#rows.set(output.id, row);
      this.list.append(row);
    }
    row.dataset.state = output.state;
    const rate = output.state === "live" ? `, ${(output.bytes / 1e6).toFixed(1)} MB sent` : "";
    const lost = output.dropped ? `, ${output.dropped} pictures lost` : "";
    const why = output.error ? `: ${output.error}` : "";
    row.querySelector(".state").textContent = (WORDS[output.state] ?? output.state) + why + rate + lost;
  }

  #row(output) {
    const row = document.createElement("li");
    const url = Object.assign(document.createElement("span"), { className: "url", textContent: output.url, title: output.url });
    const state = Object.assign(document.createElement("span"), { className: "state" });
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${output.url}`);
    remove.addEventListener("click", async () => {
      remove.disabled = true;
      await call("DELETE", `/sessions/${this.session}/outputs/${output.id}`).catch((error) => this.#say(error.message));
      remove.disabled = false;
    });
    row.append(url, state, remove);
    return row;
  }

  #choose(button) {
    for (const other of this.presets) other.setAttribute("aria-pressed", String(other === button));
    document.getElementById("output-url-row").hidden = button.dataset.preset !== "";
    (button.dataset.preset ? this.key : this.url).focus();
  }

  async #add() {
    const preset = this.presets.find((button) => button.getAttribute("aria-pressed") === "true").dataset.preset;
    const base = preset || this.url.value.trim().replace(/\/*$/, "/");
    const key = this.key.value.trim();
    if (base === "/" || (preset && !key)) return this.#say(preset ? "Enter your stream key." : "Enter the address of the server.");
    this.#say("");
    this.button.disabled = true;
    try {
      this.update(await call("POST", `/sessions/${this.session}/outputs`, { url: (base + key).replace(/\/$/, "") }));
      this.key.value = "";
    } catch (error) {
      this.#say(error.message);
    }
    this.button.disabled = false;
  }

  #say(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }
}
