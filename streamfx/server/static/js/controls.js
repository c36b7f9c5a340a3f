// Controls made from a filter's JSON schema. Changes are sent at once, the latest wins, one call at a time.

import { call } from "./api.js";

const PAUSE = 50;
const TYPING_PAUSE = 600;

export class Controls {
  #session = null;
  #rows = new Map();
  #changes = {}; // not sent yet
  #sent = {}; // on their way
  #sending = false;
  #timer = null;
  #due = null; // when the timer goes off
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
    clearTimeout(this.#timer);
    this.#due = null;
    this.box.replaceChildren();
    // What is read only when a filter is set up is not for the page.
    const properties = Object.entries(this.#schema?.properties ?? {}).filter(([, property]) => !property.setup);
    this.resetAll.hidden = !properties.length;
    for (const [name, raw] of properties) {
      const row = makeRow(name, resolve(raw, this.#schema), (value, typing) => this.#changed(name, value, typing));
      row.set(params[name] ?? row.initial);
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
      if (name in params && !(name in this.#changes) && !(name in this.#sent) && !row.busy) row.set(params[name]);
    }
  }

  #changed(name, value, typing) {
    this.#changes[name] = value;
    this.#rows.get(name)?.wrong("");
    this.#sendIn(typing ? TYPING_PAUSE : PAUSE);
  }

  /** The earliest call counts: a slider on the move must not put off what it sends. Typing waits for its end. */
  #sendIn(pause) {
    const due = performance.now() + pause;
    if (pause < TYPING_PAUSE && this.#due !== null && this.#due <= due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => {
      this.#due = null;
      this.#send();
    }, pause);
  }

  async #send() {
    if (this.#sending || !Object.keys(this.#changes).length) return;
    this.#sending = true;
    const sent = (this.#sent = this.#changes);
    const schema = this.#schema;
    this.#changes = {};
    let pause = 0;
    try {
      const params = await call("PATCH", `/sessions/${this.#session}/params`, sent);
      this.#sent = {};
      if (schema === this.#schema) this.update(params);
    } catch (error) {
      pause = this.#failed(error, sent, schema);
    }
    this.#sent = {};
    this.#sending = false;
    if (Object.keys(this.#changes).length) this.#sendIn(pause);
  }

  /** Says what is wrong where it is; what merely did not get through is sent again. Returns how long to wait. */
  #failed(error, sent, schema) {
    if (schema !== this.#schema) return 0; // of a filter that is gone
    const lost = error.status === 0 || error.status === 429 || error.status >= 500;
    if (lost) this.#changes = { ...sent, ...this.#changes };
    const named = Object.keys(sent).filter((name) => error.message.includes(name));
    for (const name of named.length ? named : Object.keys(sent)) this.#rows.get(name)?.wrong(error.message);
    return lost ? (error.retryAfter ?? 1) * 1000 : 0;
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

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function makeRow(name, property, onChange) {
  const title = property.title ?? name;
  const initial = property.default;
  const label = make("label", { className: "name", textContent: title, id: `name-${name}` });
  const help = make("p", { className: "help", id: `help-${name}`, textContent: property.description ?? "" });
  const wrong = make("p", { className: "wrong", id: `wrong-${name}`, role: "alert" });
  const reset = make("button", { type: "button", className: "reset", textContent: "reset" });
  reset.setAttribute("aria-label", `reset ${title}`);
  const note = (value) => element.classList.toggle("changed", initial !== undefined && value !== initial);
  const widget = makeWidget(name, property, title, (value, typing = false) => {
    note(value);
    onChange(value, typing);
  });
  const main = widget.input ?? widget.element;
  main.id ||= `param-${name}`;
  if (widget.input) label.htmlFor = main.id;
  main.setAttribute("aria-describedby", `${help.id} ${wrong.id}`);
  const head = make("div", { className: "control-head" }, label, reset, ...(widget.beside ?? []));
  const element = make("div", { className: "control" }, head, help, ...(widget.element ? [widget.element] : []), wrong);
  const set = (value) => {
    note(value);
    widget.set(value);
  };
  const toInitial = () => {
    set(initial);
    onChange(initial, false);
  };
  reset.addEventListener("click", () => {
    toInitial();
    main.focus(); // the button hides
  });
  return {
    element,
    initial,
    set,
    reset: () => element.classList.contains("changed") && toInitial(),
    wrong(text) {
      wrong.textContent = text;
      main.toggleAttribute("aria-invalid", Boolean(text));
    },
    get busy() {
      return widget.busy?.() === true;
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
    return low === undefined || high === undefined ? number(name, property, change) : slider(name, property, title, change);
  }
  return property.examples ? suggested(name, property, title, change) : text(name, kind, change);
}

function slider(name, property, title, change) {
  const whole = property.type === "integer";
  const span = (property.maximum ?? property.exclusiveMaximum) - (property.minimum ?? property.exclusiveMinimum);
  const step = property["x-step"] ?? (whole ? 1 : niceStep(span));
  // A bound that is excluded is one step away.
  const min = property.minimum ?? property.exclusiveMinimum + step;
  const max = property.maximum ?? property.exclusiveMaximum - step;
  const range = make("input", { type: "range", min, max, step });
  range.dataset.param = name;
  const field = make("input", { type: "number", min, max, step: whole ? 1 : "any", className: "value", placeholder: "auto" });
  field.setAttribute("aria-label", `${title}, value`);
  const paint = () => range.style.setProperty("--fill", `${((range.value - min) / (max - min)) * 100}%`);
  let dragging = false;
  range.addEventListener("pointerdown", () => (dragging = true));
  for (const end of ["pointerup", "pointercancel", "blur"]) range.addEventListener(end, () => (dragging = false));
  range.addEventListener("input", () => {
    field.value = range.value;
    paint();
    change(Number(range.value));
  });
  field.addEventListener("change", () => {
    if (field.value === "" || !field.checkValidity()) return field.reportValidity();
    range.value = field.value;
    typed = false;
    paint();
    change(Number(field.value));
  });
  let typed = false;
  field.addEventListener("input", () => (typed = true));
  field.addEventListener("blur", () => (typed = false));
  const set = (value) => {
    const left = value === null || value === undefined;
    range.value = left ? min : value;
    field.value = left ? "" : whole ? value : Number(Number(value).toFixed(4));
    paint();
  };
  return { element: range, input: range, beside: [field], set, busy: () => dragging || typed };
}

function niceStep(span) {
  return 10 ** Math.floor(Math.log10(span / 100));
}

function number(name, property, change) {
  const input = make("input", { type: "number", className: "wide", step: property.type === "integer" ? 1 : "any" });
  for (const [key, bound] of [["min", property.minimum], ["max", property.maximum]]) if (bound !== undefined) input[key] = bound;
  input.dataset.param = name;
  input.addEventListener("change", () => input.value !== "" && input.reportValidity() && change(Number(input.value)));
  return { element: input, input, set: (value) => (input.value = value ?? "") };
}

function seed(name, property, change) {
  const made = number(name, { ...property, type: "integer" }, change);
  const dice = make("button", { type: "button", title: "Another seed" });
  dice.setAttribute("aria-label", "Another seed");
  dice.innerHTML = '<svg aria-hidden="true"><use href="/static/img/icons.svg#dice"></use></svg>';
  dice.addEventListener("click", () => {
    const low = property.minimum ?? 0;
    const high = Math.min(property.maximum ?? 2 ** 31 - 1, low + 2 ** 31 - 1);
    made.set(low + Math.floor(Math.random() * (high - low + 1)));
    change(Number(made.input.value));
  });
  return { ...made, element: make("div", { className: "seed" }, made.input, dice) };
}

function toggle(name, change) {
  const input = make("input", { type: "checkbox", className: "switch", role: "switch" });
  input.dataset.param = name;
  input.addEventListener("change", () => change(input.checked));
  return { input, beside: [input], set: (value) => (input.checked = Boolean(value)) };
}

function text(name, kind, change) {
  const prompt = kind === "prompt";
  const input = make(prompt ? "textarea" : "input", prompt ? { rows: 2 } : { type: kind === "color" ? "color" : "text" });
  input.dataset.param = name;
  input.addEventListener("input", () => change(input.value, kind !== "color"));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    change(input.value);
  });
  const set = (value) => (input.value = value ?? "");
  return { element: input, input, set, busy: () => document.activeElement === input };
}

/** A text with values to pick from. What is typed is sent by Enter or by leaving; the server may put it into other words. */
function suggested(name, property, title, change) {
  const input = make("input", { type: "text", className: "wide" });
  input.dataset.param = name;
  input.addEventListener("change", () => change(input.value));
  input.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && input.blur());
  const picks = choice(name, { ...property, enum: property.examples }, title, (value) => {
    input.value = value;
    change(value);
  });
  delete picks.element.dataset.param; // the text is the parameter's control
  const set = (value) => {
    input.value = value ?? "";
    picks.set(value);
  };
  return { element: make("div", { className: "suggested" }, input, picks.element), input, set, busy: () => document.activeElement === input };
}

function choice(name, property, title, change) {
  const thumbnails = property["x-thumbnails"] ?? {};
  const box = make("div", { className: Object.keys(thumbnails).length ? "segments thumbs" : "segments", role: "group" });
  box.setAttribute("aria-label", title);
  box.dataset.param = name;
  const buttons = new Map();
  const set = (value) => {
    for (const [one, button] of buttons) button.setAttribute("aria-pressed", String(one === value));
  };
  for (const value of property.enum) {
    const button = make("button", { type: "button" });
    button.dataset.value = value;
    if (thumbnails[value]) button.append(make("img", { src: thumbnails[value], alt: "" }));
    button.append(String(value ?? "none"));
    button.addEventListener("click", () => {
      set(value);
      change(value);
    });
    buttons.set(value, button);
    box.append(button);
  }
  return { element: box, set };
}
