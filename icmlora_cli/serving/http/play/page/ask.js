// An input, answered by the model alone, by the model that is told the task, and by the model with the adapter.

import { read, stream } from "./api.js";
import { byId, element, plural, say } from "./dom.js";
import { run, sendOnEnter } from "./running.js";

const COLUMNS = {
  base: ["The model alone", "It gets the input and nothing else."],
  described: ["The model, told the task", "The task stands in words before the input."],
  adapter: ["The model with the adapter", "It gets the input alone; the adapter does the rest."],
};
const ENDS = { stop: "ended by itself, or with its line", length: "cut at the length you set" };
const adapters = new Map(); // what the select offers, by its values: {made | task, text, template}
let sample = null; // {input, output} of a task that was picked, while its input is in the field

/** Offer an adapter that was made here or that is registered, and choose it. */
export function offer(key, adapter, label, choose) {
  const select = byId("adapter");
  if (!adapters.has(key)) {
    const option = element("option", label.length > 90 ? `${label.slice(0, 89)}…` : label, { value: key });
    if (adapter.made) select.prepend(option);
    else select.append(option);
  }
  adapters.set(key, adapter);
  if (choose) {
    select.value = key;
    follow();
  }
}

/** A registered task has its own way of writing prompts; an adapter that was made here has that of its examples. */
function follow() {
  const adapter = adapters.get(byId("adapter").value);
  const select = byId("template");
  select.disabled = Boolean(adapter?.task);
  if (adapter?.template) select.value = adapter.template;
}

/** Put an example of a task into the input. */
export async function fillSample(name) {
  sample = await read(`api/sample/${encodeURIComponent(name)}`).catch(() => null);
  if (sample) byId("input").value = sample.input;
  showExpected();
}

function showExpected() {
  if (sample && byId("input").value !== sample.input) sample = null;
  say("expected", sample ? `An example of this task; the right answer is: ${sample.output}` : "");
}

function card(column) {
  const [title, note] = COLUMNS[column];
  const made = element("article", "", { id: `answer-${column}`, class: column === "adapter" ? "ours" : "", "aria-labelledby": `title-${column}` });
  const answer = element("p", "", { class: "answer", tabindex: "0", "aria-label": `Answer: ${title}` });
  made.append(element("h3", title, { id: `title-${column}` }), element("p", note, { class: "note" }), answer, element("p", "", { class: "note end" }));
  return made;
}

function finish(column, event) {
  const made = byId(`answer-${column}`);
  const answer = made.querySelector(".answer");
  made.classList.remove("busy");
  const end = made.querySelector(".end");
  const empty = answer.textContent.trim() === "";
  end.textContent = `${plural(event.tokens, "word piece")}, ${ENDS[event.finish] || event.finish}${empty ? "; the answer is empty" : ""}`;
  if (sample && answer.textContent.trim() === sample.output.trim()) end.prepend(element("span", "the right answer", { class: "right" }), "; ");
}

function onEvent(event) {
  const made = byId(`answer-${event.column}`);
  if (event.event === "column") {
    made.classList.add("busy");
    const details = element("details");
    details.append(element("summary", "What the model was given"), element("p", event.prompt, { class: "prompt", tabindex: "0" }));
    made.append(details);
  } else if (event.event === "piece") {
    const answer = made.querySelector(".answer");
    answer.append(answer.textContent ? event.text : event.text.trimStart()); // a prompt's last word is followed by a space
  } else if (event.event === "end") {
    finish(event.column, event);
  }
}

function ask(event) {
  event.preventDefault();
  const adapter = adapters.get(byId("adapter").value);
  const text = adapter?.text || byId("text").value;
  const body = { input: byId("input").value, text, template: byId("template").value, max_tokens: Math.round(Number(byId("tokens").value)) };
  if (adapter?.made) body.made = adapter.made;
  if (adapter?.task) body.task = adapter.task;
  run("ask", "Answering, one after another …", () => "", ["input", "tokens"], async (signal) => {
    const shown = ["base", ...(text.trim() ? ["described"] : []), ...(adapter?.made || adapter?.task ? ["adapter"] : [])];
    byId("answers").replaceChildren(...shown.map(card));
    try {
      await stream("api/ask", body, onEvent, signal);
    } catch (error) {
      if (!byId("answers").querySelector(".answer:not(:empty)")) byId("answers").replaceChildren();
      if (error.field === "max_tokens") error.field = "tokens";
      throw error;
    } finally {
      for (const busy of byId("answers").querySelectorAll(".busy")) busy.classList.remove("busy");
    }
  });
}

byId("ask-form").addEventListener("submit", ask);
byId("adapter").addEventListener("change", follow);
byId("input").addEventListener("input", showExpected);
sendOnEnter(byId("input"), byId("ask-form"));
