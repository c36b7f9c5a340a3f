// Calls to the server: the token, JSON, and errors as sentences.

const KEY = "streamfx-token";

export class ApiError extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let askForToken = () => Promise.reject(new ApiError(401, "this server needs a token"));

/** `ask(wrong)` shows a dialogue and resolves with a token. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

/** Takes the token out of the address (`#token=...`), so that it is not copied along with it. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.search);
}

/** The token of this tab; "" if there is none. */
export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

let asking = null;

async function renewToken(used) {
  if (token() !== used) return; // another call was faster
  asking ??= askForToken(used !== "").then((given) => sessionStorage.setItem(KEY, given)).finally(() => (asking = null));
  await asking;
}

/** fetch with the token; asks for it when the server does. Throws ApiError. */
export async function request(path, options = {}) {
  for (;;) {
    const used = token();
    const headers = new Headers(options.headers);
    if (used) headers.set("Authorization", `Bearer ${used}`);
    const response = await fetch(path, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, "The server does not answer.");
    });
    if (response.status === 401 && !options.quiet) {
      await renewToken(used);
      continue;
    }
    if (!response.ok) throw await problem(response);
    return response;
  }
}

async function problem(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  try {
    const body = await response.json();
    return new ApiError(response.status, body.detail ?? response.statusText, retryAfter);
  } catch {
    return new ApiError(response.status, `the server answered ${response.status}`, retryAfter);
  }
}

/** JSON in, JSON out. */
export async function call(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** Deletes, also while the page is closing. Resolves when it is answered, after a second at most. */
export function farewell(path) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const signal = AbortSignal.timeout(1000);
  return fetch(path, { method: "DELETE", headers, keepalive: true, signal }).catch(() => {});
}
