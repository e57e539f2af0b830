// A task in words, perhaps with examples, becomes an adapter.

import { stream } from "./api.js";
import { fillSample, offer } from "./ask.js";
import { byId, element, plural, say } from "./dom.js";
import { showMade, showNear } from "./made.js";
import { run, sendOnEnter } from "./running.js";

const FIELDS = ["text", "examples", "budget"];
const STEPS = { wait: "Wait for the model", make: "Make the adapter", compare: "Compare with what was learned" };
const TRY = "Try adapters on your examples, and train some on them";

function showSteps(now, withExamples) {
  const names = Object.keys(STEPS);
  byId("steps").replaceChildren(...names.map((name, index) => {
    const at = names.indexOf(now);
    const state = index < at || now === "done" ? "done" : index === at ? "now" : "";
    return element("li", name === "make" && withExamples ? TRY : STEPS[name], state ? { class: state } : {});
  }));
}

function showProgress(event) {
  const bar = byId("progress");
  bar.hidden = !event?.total;
  if (event?.total) {
    bar.max = event.total;
    bar.value = event.done;
  }
}

/** Offer an adapter that was made, and choose it if it is new. */
export function offerMade(made, choose) {
  const label = made.examples ? `${made.text} (with ${plural(made.examples, "example")})` : made.text;
  offer(`made:${made.id}`, { made: made.id, text: made.text, template: made.template }, label, choose);
}

function make(event) {
  event.preventDefault();
  const examples = byId("examples").value;
  const body = { text: byId("text").value, examples, budget: Number(byId("budget").value), template: byId("examples-template").value };
  const withExamples = Boolean(examples.trim());
  const typing = document.activeElement === byId("text") || document.activeElement === byId("make");
  let detail = "";
  byId("making").hidden = false;
  showSteps("wait", withExamples);
  showProgress();
  run("make", "Working …", () => detail, FIELDS, async (signal) => {
    try {
      await stream("api/make", body, (each) => {
        if (each.event === "step") {
          showSteps(each.step, withExamples);
          showProgress();
          detail = "";
        } else if (each.event === "progress") {
          showProgress(each);
          detail = each.total ? `${each.label}: ${each.done} of ${each.total};` : `${each.label};`;
        } else if (each.event === "made") {
          showMade(each.made);
          offerMade(each.made, true);
        } else if (each.event === "near") {
          showNear(each);
        }
      }, signal);
      showSteps("done", withExamples);
      if (typing) focusInput();
    } catch (error) {
      byId("making").hidden = true;
      throw error;
    } finally {
      showProgress();
    }
  });
}

/** Go on to the input, if the user has gone nowhere else meanwhile and sees it. */
function focusInput() {
  const input = byId("input");
  const { top, bottom } = input.getBoundingClientRect();
  const stayed = [document.body, byId("text"), byId("make")].includes(document.activeElement);
  if (stayed && top >= 0 && bottom <= innerHeight) input.focus({ preventScroll: true });
}

/** Take a task's text, and an example of it for the input. */
export function take(name, text) {
  byId("text").value = text;
  say("make-error");
  fillSample(name);
  byId("text").focus();
}

/** Say how many examples there are, since they count where they are folded away too. */
function countExamples() {
  const lines = byId("examples").value.split("\n").filter((line) => line.trim()).length;
  byId("examples-summary").textContent = lines ? `Examples (${plural(lines, "line")})` : "Add a few examples (optional)";
}

byId("examples").addEventListener("input", countExamples);
byId("make-form").addEventListener("submit", make);
sendOnEnter(byId("text"), byId("make-form"));
sendOnEnter(byId("budget"), byId("make-form"));
sendOnEnter(byId("examples"), byId("make-form"), true);
