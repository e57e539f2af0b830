// What is shown of an adapter that was made: its figures, what it is near to, what was tried on the examples, its files.

import { Failure, save } from "./api.js";
import { byId, element, figure, fillTable, plural, say, seconds, size } from "./dom.js";

const KINDS = {
  base: "The model alone, no adapter", text: "Adapter of the text", "text and examples": "Adapter of text and examples",
  sample: "A variation of it", adapted: "Trained on the examples",
};
const exact = (value) => (value === null ? "–" : value.toFixed(4));
let shown = null;

function figures(made) {
  const entries = [
    ["Made in", seconds(made.seconds)], ["Size", size(made.bytes)],
    ["Examples used", made.examples ? String(made.examples) : "none"],
  ];
  byId("made-figures").replaceChildren(...entries.map(([name, value]) => {
    const entry = element("div");
    entry.append(element("dt", name), element("dd", value));
    return entry;
  }));
}

function evidence(found) {
  byId("evidence").hidden = !found;
  if (!found) return;
  const kept = found.tried[found.kept];
  const base = found.tried[0];
  const judged = kept.held_out !== null;
  const of = (item) => (judged ? item.held_out : item.nll);
  const how = judged ? "examples that were left out" : "the example";
  const sentences = [kept.kind === "base"
    ? "Nothing predicts your examples better than the model alone, so this adapter changes nothing."
    : `Surprise at ${how}: ${exact(of(base))} for the model alone, ${exact(of(kept))} with the adapter that was kept.`];
  if (!judged) sentences.push("With two or more examples, each could be judged on others.");
  if (found.out_of_time) sentences.push("The training ended when the time was spent; with more seconds it goes on longer.");
  byId("evidence-note").textContent = sentences.join(" ");
  const rows = found.tried.map((item, index) => {
    const what = element("th", KINDS[item.kind], { scope: "row" });
    if (item.detail) what.append(element("small", item.detail.replace(/^1 steps/, "1 step")));
    const isKept = index === found.kept;
    return {
      kind: isKept ? "kept" : "",
      parts: [what, element("td", exact(item.held_out), { class: "n" }), element("td", exact(item.nll), { class: "n" }), element("td", isKept ? "kept" : "", { class: "whole" })],
    };
  });
  fillTable(byId("tried"), [["What was tried"], ["Surprise at left-out examples", "n"], ["Surprise at all examples", "n"], [""]], rows);
}

/** Show an adapter; what it is near to comes later. */
export function showMade(made) {
  shown = made;
  byId("made").hidden = false;
  byId("made-text").textContent = made.text;
  say("outside");
  say("save-error");
  byId("near").hidden = true;
  figures(made);
  evidence(made.evidence);
}

/** Show what an adapter is near to, and whether its text lies outside of what the generator learned. */
export function showNear(event) {
  if (shown === null || shown.id !== event.id) return;
  const { range, nearest, adapter } = event;
  say("outside", range.outside
    ? "Careful: this text is unlike anything that the generator learned from. Expect the adapter of some other task, perhaps one of those below. A few examples help."
    : "");
  const sentences = [];
  if (range.ratio !== null) {
    sentences.push(`Its text is ${range.ratio.toFixed(1)} times as far from the nearest of ${plural(range.tasks, "learned task")} as these usually are from each other.`);
  }
  if (adapter !== null) sentences.push(`The nearest trained adapter is that of ${adapter.task} (a distance of 0 would be a copy; this is ${figure(adapter.distance)}).`);
  if (!range.outside) sentences.push("See whether you mean one of these: if not, expect some other task's adapter.");
  byId("near-note").textContent = sentences.join(" ");
  const rows = nearest.map((item) => {
    const what = element("th", item.text, { scope: "row" });
    what.append(element("small", item.task));
    return { parts: [what, element("td", figure(item.alike), { class: "n" })] };
  });
  fillTable(byId("nearest"), [["Nearest learned tasks"], ["Alike, up to 1", "n whole"]], rows);
  byId("near").hidden = false;
}

for (const kind of ["zip", "gguf"]) {
  const button = byId(`save-${kind}`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    say("save-error");
    try {
      await save(`api/made/${shown.id}.${kind}`);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      say("save-error", error.message);
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
}
