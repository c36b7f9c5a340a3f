// Server-sent events by fetch (EventSource cannot send a token), joined again when they break off.

import { request } from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8000;

/** Calls `handlers[name](data)` for each event until the returned function is called. `path()` is asked anew each time. */
export function listen(path, handlers) {
  const stop = new AbortController();
  let pause = FIRST_PAUSE;
  const run = async () => {
    while (!stop.signal.aborted) {
      try {
        const response = await request(path(), { signal: stop.signal, headers: { Accept: "text/event-stream" } });
        await read(response.body, (name, data) => {
          pause = FIRST_PAUSE;
          handlers[name]?.(data);
        });
      } catch (error) {
        if (stop.signal.aborted) return;
        handlers.error?.(error);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  };
  run();
  return () => stop.abort();
}

async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      dispatch(text.slice(0, end), onEvent);
      text = text.slice(end + 2);
    }
  }
}

function dispatch(block, onEvent) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length) onEvent(name, JSON.parse(data.join("\n")));
}
