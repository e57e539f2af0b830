// Small helpers. Texts of others only ever become text nodes, so that no markup in them is read.

export const byId = (id) => document.getElementById(id);

/** An element with a text and attributes. */
export function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Show a text in an element, or hide the element where there is none. */
export function say(id, text = "") {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

/** Bytes in the unit that suits them. */
export function size(bytes) {
  for (const [unit, each] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= each) return `${(bytes / each).toFixed(1)} ${unit}`;
  }
  return `${bytes} bytes`;
}

export const seconds = (value) => (value < 1 ? `${Math.max(1, Math.round(value * 1000))} ms` : value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`);
export const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** The head and the rows of a table; each row is its elements, perhaps with a class. */
export function fillTable(table, heads, rows) {
  const head = element("tr");
  head.append(...heads.map(([text, kind]) => element("th", text, { scope: "col", ...(kind ? { class: kind } : {}) })));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const { parts, kind } of rows) {
    const row = element("tr", "", kind ? { class: kind } : {});
    row.append(...parts);
    body.append(row);
  }
  table.replaceChildren(top, body);
}
