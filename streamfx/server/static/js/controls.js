// Controls made from a filter's JSON schema. Changes are sent at once, the latest wins, one call at a time.

import { ApiError, call } from "./api.js";

const PAUSE = 50;
const TYPING_PAUSE = 600;

export class Controls {
  #session = null;
  #rows = new Map();
  #changes = {};
  #sending = false;
  #schema = null;

  constructor() {
    this.box = document.getElementById("controls");
    this.resetAll = document.getElementById("reset-all");
    this.resetAll.addEventListener("click", () => {
      for (const row of this.#rows.values()) row.reset();
    });
  }

  /** Builds the controls of a filter. `params`: present values. */
  build(session, filter, params) {
    this.#session = session;
    this.#schema = filter?.schema ?? null;
    this.#rows.clear();
    this.#changes = {};
    this.box.replaceChildren();
    const properties = Object.entries(this.#schema?.properties ?? {});
    this.resetAll.hidden = !properties.length;
    for (const [name, raw] of properties) {
      const row = makeRow(name, resolve(raw, this.#schema), (value, typing) => this.#changed(name, value, typing));
      row.set(params[name]);
      this.#rows.set(name, row);
      this.box.append(row.element);
    }
    if (!properties.length) {
      const text = document.createElement("p");
      text.className = "none";
      text.textContent = filter ? "This filter has no settings." : "The picture passes as it is. Choose a filter above.";
      this.box.append(text);
    }
  }

  /** Values that somebody else may have changed. */
  update(params) {
    for (const [name, row] of this.#rows) {
      if (name in params && !(name in this.#changes) && !row.busy) row.set(params[name]);
    }
  }

  #changed(name, value, typing) {
    this.#changes[name] = value;
    this.#rows.get(name)?.wrong("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), typing ? TYPING_PAUSE : PAUSE);
  }

  async #send() {
    if (this.#sending || !Object.keys(this.#changes).length) return;
    this.#sending = true;
    const sent = this.#changes;
    this.#changes = {};
    try {
      this.update(await call("PATCH", `/sessions/${this.#session}/params`, sent));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      for (const name of Object.keys(sent)) this.#rows.get(name)?.wrong(error.message);
    } finally {
      this.#sending = false;
    }
    if (Object.keys(this.#changes).length) this.#send();
  }
}

/** Follows $ref and takes the null out of optional values. */
function resolve(property, schema) {
  const follow = (one) => (one.$ref ? { ...schema.$defs[one.$ref.split("/").pop()], ...one } : one);
  let found = follow(property);
  const options = found.anyOf ?? found.allOf;
  if (options) found = { ...follow(options.find((one) => one.type !== "null") ?? {}), ...found };
  return found;
}

function makeRow(name, property, onChange) {
  const element = document.createElement("div");
  element.className = "control";
  const head = document.createElement("div");
  head.className = "control-head";
  const title = property.title ?? name;
  const label = document.createElement("label");
  label.className = "name";
  label.textContent = title;
  const help = document.createElement("p");
  help.className = "help";
  help.id = `help-${name}`;
  help.textContent = property.description ?? "";
  const wrong = document.createElement("p");
  wrong.className = "wrong";
  wrong.setAttribute("role", "alert");
  const reset = document.createElement("button");
  reset.type = "button";
  reset.className = "reset";
  reset.textContent = "reset";
  reset.setAttribute("aria-label", `Reset ${title}`);
  let value = property.default;
  const note = () => element.classList.toggle("changed", property.default !== undefined && value !== property.default);
  const change = (next, typing = false) => {
    value = next;
    note();
    onChange(next, typing);
  };
  const widget = makeWidget(name, property, title, change);
  if (widget.input) {
    widget.input.id ||= `param-${name}`;
    label.htmlFor = widget.input.id;
    widget.input.setAttribute("aria-describedby", help.id);
  }
  head.append(label, reset, ...(widget.beside ?? []));
  element.append(head, widget.element, help, wrong);
  const set = (next) => {
    value = next;
    note();
    widget.set(next);
  };
  reset.addEventListener("click", () => {
    set(property.default);
    onChange(property.default, false);
  });
  return {
    element,
    set,
    reset: () => element.classList.contains("changed") && reset.click(),
    wrong: (text) => (wrong.textContent = text),
    get busy() {
      return element.contains(document.activeElement) && element.matches(":active, :focus-within") && widget.dragging?.() === true;
    },
  };
}

function makeWidget(name, property, title, change) {
  const kind = property["x-widget"];
  if (property.enum) return choice(name, property, title, change);
  if (property.type === "boolean") return toggle(name, change);
  if (kind === "seed") return seed(name, property, change);
  if (property.type === "number" || property.type === "integer") {
    const low = property.minimum ?? property.exclusiveMinimum;
    const high = property.maximum ?? property.exclusiveMaximum;
    return low === undefined || high === undefined ? number(name, property, change) : slider(name, property, title, low, high, change);
  }
  return text(name, kind, change);
}

function slider(name, property, title, low, high, change) {
  const whole = property.type === "integer";
  const range = Object.assign(document.createElement("input"), { type: "range", min: low, max: high });
  range.step = property["x-step"] ?? (whole ? 1 : niceStep(high - low));
  range.dataset.param = name;
  const field = Object.assign(document.createElement("input"), { type: "number", min: low, max: high, className: "value" });
  field.step = whole ? 1 : "any";
  field.setAttribute("aria-label", `${title}, value`);
  let dragging = false;
  range.addEventListener("pointerdown", () => (dragging = true));
  for (const end of ["pointerup", "pointercancel", "blur"]) range.addEventListener(end, () => (dragging = false));
  range.addEventListener("input", () => {
    field.value = range.value;
    change(Number(range.value));
  });
  field.addEventListener("change", () => {
    if (field.value === "" || !field.checkValidity()) return field.reportValidity();
    range.value = field.value;
    change(Number(field.value));
  });
  const set = (value) => {
    range.value = value;
    field.value = whole ? value : Number(Number(value).toFixed(4));
  };
  return { element: range, input: range, beside: [field], set, dragging: () => dragging };
}

function niceStep(span) {
  return 10 ** Math.floor(Math.log10(span / 100));
}

function number(name, property, change) {
  const input = Object.assign(document.createElement("input"), { type: "number", className: "wide" });
  input.step = property.type === "integer" ? 1 : "any";
  input.dataset.param = name;
  input.addEventListener("change", () => input.value !== "" && change(Number(input.value)));
  return { element: input, input, set: (value) => (input.value = value ?? "") };
}

function seed(name, property, change) {
  const made = number(name, { ...property, type: "integer" }, change);
  const box = document.createElement("div");
  box.className = "seed";
  const dice = document.createElement("button");
  dice.type = "button";
  dice.setAttribute("aria-label", "Another seed");
  dice.innerHTML = '<svg aria-hidden="true"><use href="/static/img/icons.svg#dice"></use></svg>';
  dice.addEventListener("click", () => {
    const low = property.minimum ?? 0;
    const high = Math.min(property.maximum ?? 2 ** 31 - 1, low + 2 ** 31 - 1);
    made.set(low + Math.floor(Math.random() * (high - low + 1)));
    change(Number(made.input.value));
  });
  box.append(made.input, dice);
  return { ...made, element: box };
}

function toggle(name, change) {
  const input = Object.assign(document.createElement("input"), { type: "checkbox" });
  input.dataset.param = name;
  const box = document.createElement("div");
  box.className = "switch";
  box.append(input);
  input.addEventListener("change", () => change(input.checked));
  return { element: box, input, set: (value) => (input.checked = Boolean(value)) };
}

function text(name, kind, change) {
  const prompt = kind === "prompt";
  const input = document.createElement(prompt ? "textarea" : "input");
  if (prompt) input.rows = 2;
  else input.type = kind === "color" ? "color" : "text";
  input.dataset.param = name;
  let sent = "";
  const send = (typing) => {
    if (input.value === sent) return;
    sent = input.value;
    change(input.value, typing);
  };
  input.addEventListener("input", () => send(kind !== "color"));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    change(input.value);
  });
  const set = (value) => (sent = input.value = value ?? "");
  return { element: input, input, set, dragging: () => document.activeElement === input };
}

function choice(name, property, title, change) {
  const box = document.createElement("div");
  const thumbnails = property["x-thumbnails"] ?? {};
  box.className = Object.keys(thumbnails).length ? "segments thumbs" : "segments";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", title);
  box.dataset.param = name;
  const buttons = new Map();
  const set = (value) => {
    for (const [one, button] of buttons) button.setAttribute("aria-pressed", String(one === value));
  };
  for (const value of property.enum) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.value = value;
    if (thumbnails[value]) {
      const picture = document.createElement("img");
      picture.src = thumbnails[value];
      picture.alt = "";
      button.append(picture);
    }
    button.append(String(value));
    button.addEventListener("click", () => {
      set(value);
      change(value);
    });
    buttons.set(value, button);
    box.append(button);
  }
  return { element: box, set };
}
