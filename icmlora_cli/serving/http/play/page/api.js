// Requests to the server that sent this page. All addresses are relative to the page's, which has the token.

const GONE = "The server does not answer. Is icmlora still running in its terminal?";

/** A failure that has a message for people, and perhaps the field that is wrong. */
export class Failure extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(GONE);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new Failure(sentence(body?.error?.message || `The server answered ${response.status}.`), body?.error?.param);
}

/** A message that begins with a capital letter and ends with a full stop. */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

export const read = async (path) => (await request(path)).json();

/** Send a body, and call ``onEvent`` with each line of the answer as it comes; an event that is an error is thrown. */
export async function stream(path, body, onEvent, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure(GONE);
    }
    const lines = (rest + (part.value || "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "error") throw new Failure(sentence(event.error.message), event.error.param);
      onEvent(event);
    }
    if (part.done) return;
  }
}

/** Fetch a file and let the browser save it. */
export async function save(path) {
  const response = await request(path);
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "")?.[1] || "adapter";
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
