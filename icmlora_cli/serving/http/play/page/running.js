// What is under way: one making and one asking at most, each of which Escape or its button stops.

import { Failure } from "./api.js";
import { byId, say, seconds } from "./dom.js";

const running = new Set();
addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const each of running) each.abort();
});

/**
 * Run something that can be stopped, while its button is off and its time is shown.
 * ``name`` is that of the button, of NAME-stop, NAME-status, NAME-time and NAME-error; ``fields`` are where a wrong value
 * can be. What changes all the time is not for screen readers: they are told ``label``, and the end.
 */
export async function run(name, label, detail, fields, work) {
  if (byId(name).disabled) return;
  const abort = new AbortController();
  const started = performance.now();
  const elapsed = () => seconds((performance.now() - started) / 1000);
  const tick = () => { byId(`${name}-time`).textContent = `${detail()} ${elapsed()}`; };
  say(`${name}-error`);
  for (const field of fields) byId(field).removeAttribute("aria-invalid");
  running.add(abort);
  byId(name).disabled = true;
  byId(`${name}-stop`).hidden = false;
  byId(`${name}-stop`).onclick = () => abort.abort();
  byId(`${name}-status`).textContent = label;
  tick();
  const timer = setInterval(tick, 500);
  let end = "";
  try {
    await work(abort.signal);
    end = `Done in ${elapsed()}.`;
  } catch (error) {
    if (error.name === "AbortError") {
      end = "Stopped.";
    } else if (error instanceof Failure) {
      say(`${name}-error`, error.message);
      if (fields.includes(error.field)) {
        byId(error.field).setAttribute("aria-invalid", "true");
        byId(error.field).focus();
      }
    } else {
      say(`${name}-error`, "This page has failed; load it again.");
      throw error;
    }
  } finally {
    clearInterval(timer);
    running.delete(abort);
    byId(name).disabled = false;
    byId(`${name}-stop`).hidden = true;
    byId(`${name}-time`).textContent = "";
    byId(`${name}-status`).textContent = end;
  }
}

/** Let Enter send a form from a field; with ``lines``, where Enter starts a line, Ctrl+Enter does. */
export function sendOnEnter(field, form, lines = false) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    if (lines && !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
