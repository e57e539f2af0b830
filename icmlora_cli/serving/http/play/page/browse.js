// The tasks that the generator learned, and the tasks and adapters of the registry.

import { Failure, read, save } from "./api.js";
import { fillSample, offer } from "./ask.js";
import { byId, element, plural, say, size } from "./dom.js";
import { take } from "./make.js";

const ROWS = 200; // of each list at once
const CHIPS = 4;
let listing = { learned: [], tasks: [] };

function button(text, label, onClick) {
  const made = element("button", text, { type: "button", "aria-label": label });
  made.addEventListener("click", onClick);
  return made;
}

function row(title, note, buttons) {
  const made = element("li");
  const what = element("div", title, { class: "what" });
  what.append(element("small", note));
  made.append(what, ...buttons);
  return made;
}

function learnedRow({ name, text }) {
  return row(text, name, [button("Use this text", `Use this text: ${text}`, () => take(name, text))]);
}

async function download(name, kind) {
  say("browse-error");
  try {
    await save(`api/task/${encodeURIComponent(name)}.${kind}`);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    say("browse-error", error.message);
  }
}

function use(task) {
  offer(`task:${task.name}`, { task: task.name, text: task.text }, `${task.name} (registry)`, true);
  fillSample(task.name);
  byId("input").focus();
}

function registryRow(task) {
  const { adapter } = task;
  const facts = [task.name];
  if (task.examples) facts.push(plural(task.examples, "example"));
  if (task.kept_out) facts.push("kept out of training, to test with");
  facts.push(adapter ? `${adapter.origin === "imported" ? "imported" : "trained"} adapter, ${size(adapter.bytes)}` : "no adapter yet");
  if (adapter && !task.usable) facts.push("older than its examples");
  const buttons = task.text ? [button("Use this text", `Use the text of ${task.name}`, () => take(task.name, task.text))] : [];
  if (task.usable) buttons.push(button("Try its adapter", `Try the adapter of ${task.name}`, () => use(task)));
  if (adapter) {
    buttons.push(button("zip", `Download the adapter of ${task.name} for PEFT`, () => download(task.name, "zip")));
    buttons.push(button("GGUF", `Download the adapter of ${task.name} for llama.cpp`, () => download(task.name, "gguf")));
  }
  return row(task.text || task.name, facts.join(" · "), buttons);
}

function fill(id, items, make, nothing) {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = items.filter((item) => words.every((word) => `${item.name} ${item.text}`.toLowerCase().includes(word)));
  const rows = found.slice(0, ROWS).map(make);
  if (found.length > ROWS) rows.push(element("li", `and ${plural(found.length - ROWS, "more task")}: find them by a word`));
  if (!found.length) rows.push(element("li", items.length ? "No task has these words." : nothing));
  byId(id).replaceChildren(...rows);
}

function show() {
  fill("learned", listing.learned, learnedRow, "This generator names no tasks.");
  fill("registry", listing.tasks, registryRow, "Nothing yet. In a terminal, icmlora task add 'builtin:pick_*' registers some, and icmlora harvest trains their adapters.");
}

/** Read the lists and show them; offer the registry's adapters, and a few tasks to try. */
export async function browse() {
  listing = await read("api/registry");
  for (const task of listing.tasks) {
    if (task.usable) offer(`task:${task.name}`, { task: task.name, text: task.text }, `${task.name} (registry)`, false);
  }
  const step = Math.max(1, Math.floor(listing.learned.length / CHIPS));
  const chosen = listing.learned.filter((_, index) => index % step === Math.floor(step / 2)).slice(0, CHIPS);
  byId("chips").replaceChildren(...chosen.map(({ name, text }) => button(text, `Take this task: ${text}`, () => take(name, text))));
  show();
}

byId("filter").addEventListener("input", show);
