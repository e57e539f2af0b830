"use strict";
// Controls, tables that follow them, and the first drawing.

const chosen = (id) => document.getElementById(id).value;
const onChange = (ids, show) => {
  if (!document.getElementById(ids[0])) return;
  for (const id of ids) document.getElementById(id).addEventListener("change", show);
  show();
};

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function methodHead(method) {
  const head = element("th", titleOf(method), { scope: "row" });
  head.append(" ", element("code", method));
  return head;
}

function showComparison() {
  const [part, metric] = [chosen("comparison-part"), chosen("comparison-metric")];
  for (const panel of document.querySelectorAll("#comparison .panel")) {
    panel.hidden = panel.dataset.part !== part || panel.dataset.metric !== metric;
  }
  draw("comparison-chart", () => comparisonChart(part, metric));
}

function heatTable(part, metric) {
  const names = RESULT.methods.map((method) => method.name);
  const head = element("tr");
  head.append(element("th", "Task", { scope: "col" }), ...names.map((name) => element("th", name, { scope: "col" })));
  const body = element("tbody");
  for (const row of heatRows(part)) {
    const line = element("tr");
    if (row.task === undefined) {
      line.append(element("th", row.heading, { scope: "rowgroup", colspan: names.length + 1 }));
    } else {
      line.append(element("th", row.task, { scope: "row" }));
      for (const name of names) {
        const score = scoreOf(row.task, name);
        const figure = score?.figures[metric];
        if (figure && known(figure.value)) line.append(element("td", `${number(figure.value)} (${between(figure)})`));
        else line.append(element("td", score ? score.reason || "no such figure" : "not scored", { class: "absent" }));
      }
    }
    body.append(line);
  }
  const top = element("thead");
  top.append(head);
  document.getElementById("heat-table").replaceChildren(top, body);
}

function showHeat() {
  const [part, metric] = [chosen("heat-part"), chosen("heat-metric")];
  draw("heat-chart", () => heatChart(part, metric));
  if (document.getElementById("heat-details").open) heatTable(part, metric);
}

function showLayers() {
  const [part, measure] = [chosen("layers-part"), chosen("layers-measure")];
  draw("layers-chart", () => layersChart(part, measure));
  draw("types-chart", () => typesChart(part, measure));
}

const keyOf = (output) => JSON.stringify([output.input, output.expected, output.picture || null]);

/** The boxes that a text says, as [label, left, top, right, bottom] in thousandths of the image. */
function boxesOf(text) {
  const found = [];
  for (const [, label, locations] of text.matchAll(/([^<>]*)((?:<loc_\d{1,3}>){4,})/g)) {
    const bins = [...locations.matchAll(/\d+/g)].map(Number);
    for (let at = 0; at + 3 < bins.length; at += 4) found.push([label.trim(), ...bins.slice(at, at + 4)]);
  }
  return found;
}

/** An image with the boxes of a text drawn over it, and the expected ones dashed; null where there is no image. */
function pictureOf(output, text, expected) {
  const picture = (RESULT.pictures || {})[output.picture];
  if (!picture) return null;
  const made = (tag, attributes) => {
    const item = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) item.setAttribute(name, value);
    return item;
  };
  const [width, height] = [picture.width, picture.height];
  const line = Math.max(width, height) / 120;
  const label = `${boxesOf(text).length} of ${boxesOf(output.expected).length} boxes`;
  const svg = made("svg", { viewBox: `0 0 ${width} ${height}`, class: "boxes", role: "img", "aria-label": label });
  svg.append(made("image", { href: picture.uri, width, height, preserveAspectRatio: "none" }));
  const draw = (boxes, attributes) => {
    for (const [name, left, top, right, bottom] of boxes) {
      const [x, y] = [(left * width) / 1000, (top * height) / 1000];
      const size = { width: Math.max(0, ((right - left) * width) / 1000), height: Math.max(0, ((bottom - top) * height) / 1000) };
      const box = made("rect", { x, y, ...size, fill: "none", "stroke-width": line, ...attributes });
      const title = made("title", {});
      title.textContent = name;
      box.append(title);
      svg.append(box);
    }
  };
  if (expected) draw(boxesOf(output.expected), { class: "wanted", "stroke-dasharray": `${3 * line} ${2 * line}` });
  draw(boxesOf(text), { class: expected ? "found" : "wanted" });
  return svg;
}

/** The examples of a task that any method has an output for, in order. */
function examplesOf(task) {
  const found = new Map();
  for (const { name } of RESULT.methods) {
    for (const output of scoreOf(task, name)?.outputs || []) found.set(keyOf(output), output);
  }
  return [...found.entries()];
}

function showOutputs() {
  const task = chosen("outputs-task");
  const examples = examplesOf(task);
  document.getElementById("outputs-description").textContent = TASKS.get(task).description;
  const table = document.getElementById("outputs-table");
  const sentence = document.getElementById("outputs-empty");
  table.parentElement.hidden = !examples.length;
  sentence.hidden = Boolean(examples.length);
  sentence.textContent = examples.length ? "" : "No outputs were kept for this task.";
  const head = element("tr");
  head.append(element("th", "Method", { scope: "col" }));
  for (const [, example] of examples) {
    const column = element("th", undefined, { scope: "col" });
    column.append(element("b", example.input), "expected: ", element("code", example.expected));
    const picture = pictureOf(example, example.expected, false);
    if (picture) column.append(picture);
    head.append(column);
  }
  const body = element("tbody");
  for (const { name } of RESULT.methods) {
    const score = scoreOf(task, name);
    const outputs = new Map((score?.outputs || []).map((each) => [keyOf(each), each]));
    const line = element("tr", undefined, name === LABELS.generated ? { class: "ours" } : {});
    line.append(methodHead(name));
    if (outputs.size) {
      for (const [key] of examples) {
        const output = outputs.get(key);
        const answer = output ? element("td", output.output, { class: output.exact ? "right" : "wrong" }) : element("td", "–");
        const picture = output && pictureOf(output, output.output, true);
        if (picture) answer.append(picture);
        line.append(answer);
      }
    } else {
      line.append(element("td", score?.reason || "no outputs kept", { class: "absent", colspan: Math.max(examples.length, 1) }));
    }
    body.append(line);
  }
  const top = element("thead");
  top.append(head);
  table.replaceChildren(top, body);
}

onChange(["comparison-part", "comparison-metric"], showComparison);
onChange(["heat-part", "heat-metric"], showHeat);
onChange(["layers-part", "layers-measure"], showLayers);
onChange(["outputs-task"], showOutputs);
document.getElementById("heat-details")?.addEventListener("toggle", showHeat);
draw("vectors-chart", () => mapChart(RESULT.vectors, false));
draw("adapters-chart", () => mapChart(RESULT.adapters, true));
trainingCharts();
draw("storage-chart", storageChart);
draw("even-chart", evenChart);

let wasNarrow = narrow();
darkness.addEventListener("change", redraw);
printing.addEventListener("change", (event) => toPaper(event.matches));
addEventListener("resize", () => {
  if (wasNarrow !== narrow()) {
    wasNarrow = narrow();
    redraw();
  }
});
