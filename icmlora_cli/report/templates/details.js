"use strict";
// Fidelity by layer and module, training curves, storage.

/** Mean fidelity of each method over the tasks of a part: [method, sorted keys, key to mean], for by_layer or by_type. */
function fidelity(part, measure, group) {
  const found = [];
  for (const method of RESULT.methods) {
    if (method.name === HARVESTED) continue; // it would be compared with itself
    const values = new Map();
    for (const task of RESULT.tasks) {
      const held = task.part === part ? scoreOf(task.name, method.name)?.reconstruction : null;
      for (const [key, each] of Object.entries(held ? held[group] : {})) {
        if (known(each[measure])) values.set(key, [...(values.get(key) || []), each[measure]]);
      }
    }
    const keys = [...values.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    if (keys.length) found.push([method.name, keys, keys.map((key) => mean(values.get(key)))]);
  }
  return found;
}

const MEASURES = { error: "relative error", cosine: "cosine" };
const DASHES = ["solid", "dash", "dot"];
const PATTERNS = ["", "/", "."];
const noFidelity = (part) => `Nothing to compare on ${LABELS.parts[part]}: no adapter there has a harvested one beside it.`;

const MERGING = [...new Set(RESULT.scores.filter((score) => score.reconstruction && score.method !== HARVESTED).map((score) => score.method))];

/** A method's colour, dash and pattern, the same in every chart. */
function looks(method) {
  const { many } = theme();
  const index = MERGING.indexOf(method);
  const round = Math.floor(index / many.length) % DASHES.length;
  return { color: many[index % many.length], dash: DASHES[round], shape: PATTERNS[round] };
}

function layersChart(part, measure) {
  const found = fidelity(part, measure, "by_layer");
  if (!found.length) return noFidelity(part);
  return {
    data: found.map(([method, layers, values]) => ({
      type: "scatter", mode: layers.length > 1 ? "lines" : "markers", name: short(method, 28), x: layers.map(Number), y: values,
      customdata: layers.map(() => method), line: { color: looks(method).color, dash: looks(method).dash, width: isOurs(method) ? 3 : 1.6 },
      hovertext: values.map((value, index) => `<b>${plain(titleOf(method))}</b><br>layer ${layers[index]}: ${number(value)}`),
      hoverinfo: "text",
    })),
    layout: layout({
      height: 420, showlegend: true, xaxis: axis({ title: "layer" }),
      yaxis: axis({ title: MEASURES[measure], rangemode: "tozero" }),
    }),
  };
}

function typesChart(part, measure) {
  const found = fidelity(part, measure, "by_type");
  if (!found.length) return noFidelity(part);
  return {
    data: found.map(([method, types, values]) => ({
      type: "bar", name: short(method, 28), x: types.map((type) => short(type, 24)), y: values, customdata: types.map(() => method),
      marker: { color: looks(method).color, pattern: { shape: looks(method).shape } },
      hovertext: values.map((value, index) => `<b>${plain(titleOf(method))}</b><br>${plain(types[index])}: ${number(value)}`),
      hoverinfo: "text",
    })),
    layout: layout({
      height: 420, barmode: "group", showlegend: true, xaxis: axis({ type: "category", showgrid: false }),
      yaxis: axis({ title: MEASURES[measure], rangemode: "tozero" }),
    }),
  };
}

/** One curve of the training. */
function curveChart(name) {
  const points = RESULT.generator.curve.filter(([, losses]) => known(losses[name]));
  if (!points.length) return `There are no values of ${name}.`;
  const values = points.map(([, losses]) => losses[name]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high / low > 30;
  return {
    data: [{
      type: "scatter", mode: points.length > 1 ? "lines" : "markers", x: points.map(([step]) => step), y: values,
      line: { color: theme().accent, width: 2 }, hovertemplate: "step %{x}: %{y:.4g}<extra></extra>",
    }],
    layout: layout({
      height: 230, xaxis: axis({ title: "step" }),
      yaxis: axis({ type: log ? "log" : "linear", title: log ? "logarithmic" : "", rangemode: low >= 0 ? "tozero" : "normal", nticks: 5 }),
    }),
  };
}

/** Put a place for each curve on the page, and draw it. */
function trainingCharts() {
  const box = document.getElementById("training-charts");
  if (!box) return;
  const names = [...new Set(RESULT.generator.curve.flatMap(([, losses]) => Object.keys(losses)))];
  names.forEach((name, index) => {
    const figure = document.createElement("figure");
    const heading = document.createElement("h3");
    heading.textContent = name.replaceAll("_", " ");
    const wide = document.createElement("div");
    const place = document.createElement("div");
    place.id = `curve-${index}`;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `Curve of ${name} over the training's steps`);
    const sentence = document.createElement("p");
    sentence.id = `curve-${index}-empty`;
    sentence.className = "empty";
    wide.append(place);
    figure.append(heading, wide, sentence);
    box.append(figure);
    draw(place.id, () => curveChart(name));
  });
}

function storageChart() {
  const { generator, one_each: one, all_checkpoints: all, tasks } = RESULT.storage;
  const rows = [["generator", generator], [`one adapter each, ${tasks}`, one], ["all kept checkpoints", all]];
  return {
    data: [{
      type: "bar", orientation: "h", y: rows.map(([name]) => name), x: rows.map(([, bytes]) => bytes),
      text: rows.map(([, bytes]) => size(bytes)), textposition: "auto", insidetextfont: { color: theme().paper }, hoverinfo: "skip",
      marker: { color: [theme().uses[1], theme().uses[4], theme().uses[4]] }, cliponaxis: false,
    }],
    layout: layout({
      height: 240, xaxis: axis({ title: "bytes", rangemode: "tozero", nticks: 4, tickformat: "~s" }),
      yaxis: axis({ type: "category", autorange: "reversed", showgrid: false }),
    }),
  };
}

/** Bytes against the number of tasks: the generator stays as it is, adapters add up. */
function evenChart() {
  const { generator, one_each: one, tasks, break_even: even } = RESULT.storage;
  if (!tasks || !one) return "There is no adapter to compare the generator with.";
  const last = Math.ceil(Math.max(1.3 * tasks, 1.6 * (even || 0), 2));
  const colours = theme().uses;
  const data = [
    { type: "scatter", mode: "lines", name: "generator, at this size", x: [0, last], y: [generator, generator], line: { color: colours[1], width: 2.4 } },
    { type: "scatter", mode: "lines", name: "one adapter a task", x: [0, last], y: [0, (one / tasks) * last], line: { color: colours[4], width: 2.4 } },
    { type: "scatter", mode: "markers", name: `these ${tasks} tasks`, x: [tasks], y: [one], marker: { color: colours[4], size: 10 } },
  ];
  if (known(even)) {
    const mark = { color: theme().ink, size: 11, symbol: "x-thin", line: { width: 2, color: theme().ink } };
    data.push({ type: "scatter", mode: "markers", name: `break-even, ${even} tasks`, x: [even], y: [generator], marker: mark });
  }
  return {
    data: data.map((trace) => ({ ...trace, hovertemplate: "%{x} tasks: %{y:.3~s}B<extra></extra>" })),
    layout: layout({
      height: 320, showlegend: true, xaxis: axis({ title: "tasks", rangemode: "tozero" }),
      yaxis: axis({ title: "bytes", rangemode: "tozero", tickformat: "~s", nticks: 5 }),
    }),
  };
}
