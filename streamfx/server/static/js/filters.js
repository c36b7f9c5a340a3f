// The list of filters: one is on, or none, or one and then another ("avatar+restyle").

import { call } from "./api.js";

const NONE = { name: "", label: "none", summary: "The picture as it is." };

export class FilterList {
  #filters = [];
  #loading = null;
  #present;
  #wanted = null;
  #busy = false;

  /** `onFilter(filter or null, params)` when another one is on; `onProblem(text)`. */
  constructor(onFilter, onProblem) {
    this.box = document.getElementById("filter-list");
    this.next = document.getElementById("filter-then");
    this.next.addEventListener("change", () => this.#choose([firstOf(this.#present), this.next.value].filter(Boolean).join("+")));
    this.onFilter = onFilter;
    this.onProblem = onProblem;
  }

  /** Loads the list, once. */
  load(session) {
    this.session = session;
    this.#loading ??= this.#load().catch((error) => {
      this.#loading = null;
      throw error;
    });
    return this.#loading;
  }

  async #load() {
    this.#filters = (await call("GET", "/filters")).filters;
    const shown = [NONE, ...this.#filters.filter((filter) => filter.name !== "passthrough")];
    this.box.replaceChildren(...shown.map((filter) => this.#button(filter)));
  }

  /** What the server says is on: {name, params} or null. */
  show(present) {
    const name = present?.name ?? "";
    const first = firstOf(name);
    for (const button of this.box.children) button.setAttribute("aria-pressed", String(button.dataset.filter === first));
    if (name === this.#present) return;
    this.#present = name;
    this.#offer(first, name.slice(first.length + 1));
    this.#describe(name, present?.params ?? {}).catch((error) => this.onProblem(error.message));
  }

  async #describe(name, params) {
    let filter = this.#filters.find((one) => one.name === name) ?? null;
    if (!filter && name.includes("+")) filter = await call("GET", `/filters/${encodeURIComponent(name)}`);
    if (name === this.#present) this.onFilter(filter, params);
  }

  /** What may come after the first one. */
  #offer(first, then) {
    const fit = this.#filters.filter((one) => one.takes === "video" && !one.lacking && !["passthrough", first].includes(one.name));
    const names = fit.map((one) => one.name);
    if (then && !names.includes(then)) names.push(then);
    this.next.replaceChildren(new Option("nothing", ""), ...names.map((name) => new Option(name.replaceAll("+", ", then "), name)));
    this.next.value = then;
    this.next.closest("label").hidden = !first || !names.length;
  }

  /** Whether sound alone is worth sending. */
  get canHear() {
    return this.#filters.some((one) => one.takes === "audio" && !one.lacking);
  }

  /** Sees to it that a filter is on that is driven by sound. */
  async hear() {
    if (this.#filters.find((one) => one.name === firstOf(this.#present))?.takes === "audio") return;
    const other = this.#filters.find((one) => one.takes === "audio" && !one.lacking);
    if (!other) throw new Error("No filter here is driven by sound. Send a picture too.");
    this.show(await call("PUT", `/sessions/${this.session}/filter`, { name: other.name }));
  }

  #button(filter) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.filter = filter.name;
    const name = Object.assign(document.createElement("b"), { textContent: filter.label ?? filter.name });
    const summary = Object.assign(document.createElement("small"), { textContent: filter.summary });
    button.append(name, summary);
    button.title = filter.lacking ? `Not yet: ${filter.lacking}` : filter.summary;
    button.disabled = Boolean(filter.lacking);
    if (filter.lacking) summary.textContent = button.title;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.#choose(filter.name));
    return button;
  }

  /** One switch at a time; of several clicks meanwhile, the last counts. */
  async #choose(name) {
    this.#wanted = name;
    this.#markBusy();
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#wanted !== null) {
        const next = this.#wanted;
        const on = await call("PUT", `/sessions/${this.session}/filter`, { name: next || null });
        if (this.#wanted !== next) continue;
        this.#wanted = null;
        this.show(on?.name ? on : null);
      }
    } catch (error) {
      this.#wanted = null;
      this.next.value = (this.#present ?? "").slice(firstOf(this.#present).length + 1);
      this.onProblem(error.message);
    }
    this.#busy = false;
    this.#markBusy();
  }

  #markBusy() {
    const wanted = this.#wanted === null ? null : firstOf(this.#wanted);
    for (const button of this.box.children) button.toggleAttribute("aria-busy", button.dataset.filter === wanted);
    for (const button of this.box.querySelectorAll("[aria-busy]")) button.setAttribute("aria-busy", "true");
  }
}

const firstOf = (name) => (name ?? "").split("+")[0];
