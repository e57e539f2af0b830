// The page's beginning: what the server has, the tasks, and the evaluation if one was given.

import { Failure, read } from "./api.js";
import { offer } from "./ask.js";
import { browse } from "./browse.js";
import { byId, element, plural, say } from "./dom.js";
import { offerMade } from "./make.js";

const TEMPLATES = {
  qa: "as a question: Q: …, then A:", chat: "as a message in a chat", text: "as it is, to be gone on with",
};

function showState(state) {
  const facts = [
    ["Model: ", state.base], [" · Generator: ", `${state.generator}, which learned from ${plural(state.learned, "task")}`],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [name, element("b", value)]));
  for (const id of ["template", "examples-template"]) {
    const options = Object.entries(TEMPLATES).filter(([name]) => state.chat || name !== "chat");
    byId(id).replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
  }
  byId("budget").max = state.limits.budget;
  byId("tokens").max = state.limits.tokens;
  offer("none", { text: "" }, "none yet", true);
  for (const made of state.made) offerMade(made, false);
  byId("results").hidden = !state.results;
}

function showReport(part) {
  const frame = byId("report");
  frame.hidden = false;
  frame.src = `report#${part}`;
  frame.scrollIntoView({ block: "start" });
}

byId("show-comparison").addEventListener("click", () => showReport("comparison"));
byId("show-maps").addEventListener("click", () => showReport("maps"));

try {
  showState(await read("api/state"));
  await browse();
  if (!location.hash) byId("text").focus({ preventScroll: true });
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  say("page-error", error.message);
}
