// The list of filters: one is on, or none.

import { call } from "./api.js";

export class FilterList {
  #filters = [];
  #present;

  /** `onProblem(text)`; `onFilter(filter or null, params)` when another one is on. */
  constructor(onFilter, onProblem) {
    this.box = document.getElementById("filter-list");
    this.summary = document.getElementById("filter-summary");
    this.onFilter = onFilter;
    this.onProblem = onProblem;
  }

  async load(session) {
    this.session = session;
    this.#filters = (await call("GET", "/filters")).filters;
    const none = { name: "", label: "none", summary: "The picture as it is." };
    const shown = [none, ...this.#filters.filter((filter) => filter.name !== "passthrough")];
    this.box.replaceChildren(...shown.map((filter) => this.#button(filter)));
  }

  /** What the server says is on: {name, params} or null. */
  show(present) {
    const name = present?.name ?? "";
    for (const button of this.box.children) button.setAttribute("aria-pressed", String(button.dataset.filter === name));
    if (name === this.#present) return;
    this.#present = name;
    const filter = this.#filters.find((one) => one.name === name) ?? null;
    this.summary.textContent = filter?.summary ?? (name ? "" : "The picture as it is.");
    this.onFilter(filter, present?.params ?? {});
  }

  #button(filter) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.filter = filter.name;
    button.textContent = filter.label ?? filter.name;
    button.title = filter.summary;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.#choose(button, filter));
    return button;
  }

  async #choose(button, filter) {
    button.setAttribute("aria-busy", "true");
    try {
      this.show(await call("PUT", `/sessions/${this.session}/filter`, { name: filter.name || null }).then((on) => (on.name ? on : null)));
    } catch (error) {
      this.onProblem(error.message);
    } finally {
      button.removeAttribute("aria-busy");
    }
  }
}
