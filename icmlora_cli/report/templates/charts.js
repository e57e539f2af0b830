"use strict";
// A function for each chart: from the result to plotly's traces and layout, or to a sentence where there is nothing.

/** Bars of the comparison: a trace for each kind of knowledge; customdata is [method, value, low, high]. */
function comparisonChart(part, metric) {
  const means = new Map(
    RESULT.means.filter((m) => m.part === part && m.metric === metric && known(m.figure.value)).map((m) => [m.method, m])
  );
  const label = LABELS.metrics[metric];
  if (!means.size) return `No method has ${label.label} on ${LABELS.parts[part]}.`;
  const names = RESULT.methods.map((method) => method.name).filter((name) => means.has(name));
  const colours = theme().uses;
  const data = LABELS.uses.map((use, index) => {
    const rows = names.filter((name) => METHODS.get(name).uses === use).map((name) => means.get(name));
    return {
      type: "bar", orientation: "h", name: use, marker: { color: colours[index] },
      y: rows.map((m) => m.method), x: rows.map((m) => m.figure.value),
      customdata: rows.map((m) => [m.method, m.figure.value, m.figure.low, m.figure.high]),
      error_x: {
        type: "data", symmetric: false, color: theme().ink, thickness: 1.2, width: 4,
        array: rows.map((m) => m.figure.high - m.figure.value),
        arrayminus: rows.map((m) => m.figure.value - m.figure.low),
      },
      hovertext: rows.map((m) =>
        `<b>${plain(titleOf(m.method))}</b><br>${number(m.figure.value)} (${between(m.figure)})<br>` +
        `${m.tasks} task${m.tasks === 1 ? "" : "s"}; ${plain(use)}`),
      hoverinfo: "text",
    };
  }).filter((trace) => trace.x.length);
  const called = (name) => (narrow() ? short(name, 22) : short(titleOf(name), 46));
  const ticks = names.map((name) => (isOurs(name) ? `<b>${called(name)}</b>` : called(name)));
  return {
    data,
    layout: layout({
      height: 60 + 26 * names.length, bargap: 0.3, barmode: "overlay",
      xaxis: axis({ title: `${plain(narrow() ? label.label : label.title)}, ${label.higher ? "higher" : "lower"} is better`, rangemode: "tozero" }),
      yaxis: axis({
        type: "category", categoryorder: "array", categoryarray: names, autorange: "reversed", showgrid: false,
        tickmode: "array", tickvals: names, ticktext: ticks,
      }),
    }),
  };
}

/** A method that the others were tested against is made by the generator. */
function isOurs(method) {
  return method === LABELS.generated || RESULT.comparisons.some((item) => item.method === method);
}

/** Rows of the heat map: a heading for each part when all are shown, then its tasks. */
function heatRows(part) {
  const rows = [];
  for (const [name, title] of Object.entries(LABELS.parts)) {
    if (part && part !== name) continue;
    if (!part) rows.push({ key: `part:${name}`, heading: title });
    for (const task of RESULT.tasks) if (task.part === name) rows.push({ key: `task:${task.name}`, task: task.name });
  }
  return rows;
}

function heatText(task, method, metric) {
  const score = scoreOf(task, method);
  const start = `<b>${plain(task)}</b><br>${plain(titleOf(method))}<br>`;
  if (!score) return `${start}not scored`;
  const figure = score.figures[metric];
  if (figure && known(figure.value)) return `${start}${number(figure.value)} (${between(figure)})`;
  return start + plain(score.reason || "no such figure");
}

/** Task by method; z is null where there is no figure. */
function heatChart(part, metric) {
  const rows = heatRows(part);
  const names = RESULT.methods.map((method) => method.name);
  const value = (task, method) => {
    const figure = scoreOf(task, method)?.figures[metric];
    return figure && known(figure.value) ? figure.value : null;
  };
  const z = rows.map((row) => names.map((method) => (row.task === undefined ? null : value(row.task, method))));
  const values = z.flat().filter(known);
  const label = LABELS.metrics[metric];
  if (!values.length) return `No method has ${label.label} on ${part ? LABELS.parts[part] : "any task"}.`;
  const bounded = values.every((each) => each >= 0 && each <= 1) && label.higher;
  const sorted = [...values].sort((a, b) => a - b);
  const high = sorted[Math.floor(0.95 * (sorted.length - 1))]; // one very bad figure shall not wash out all others
  const room = narrow() ? 16 : 30;
  const head = (text) => `<b>${short(text, room + 8)}</b>`;
  return {
    minWidth: Math.max(narrow() ? 0 : 480, 150 + 46 * names.length),
    data: [{
      type: "heatmap", z, x: names, y: rows.map((row) => row.key), colorscale: theme().heat, reversescale: !label.higher,
      zmin: bounded ? 0 : sorted[0], zmax: bounded ? 1 : Math.max(high, sorted[0] + 1e-9), showscale: false, xgap: 2,
      ygap: 2, text: z.map((row) => row.map((each) => (each === null ? "" : number(each)))), texttemplate: "%{text}",
      textfont: { size: 11.5, color: theme().ink }, hoverinfo: "text",
      hovertext: rows.map((row) => names.map((method) => (row.task === undefined ? "" : heatText(row.task, method, metric)))),
    }],
    layout: layout({
      height: 150 + 25 * rows.length, margin: { l: 8, r: 40, t: 120, b: 8 },
      xaxis: axis({
        type: "category", side: "top", tickangle: -45, showgrid: false, tickmode: "array", tickvals: names,
        ticktext: names.map((name) => short(name, 26)),
      }),
      yaxis: axis({
        type: "category", autorange: "reversed", showgrid: false, tickmode: "array", tickvals: rows.map((row) => row.key),
        ticktext: rows.map((row) => (row.task === undefined ? head(row.heading) : short(row.task, room))),
      }),
    }),
  };
}

const SYMBOLS = {
  text: ["circle", "from text"], demonstrations: ["diamond-open", "from demonstrations"],
  harvested: ["circle", "harvested"], generated: ["diamond-open", "generated"],
};

/** A PCA map: colours are parts, symbols are kinds; ``joined`` draws a line between the points of a task. */
function mapChart(map, joined) {
  if (!map || !map.points.length) return "There is no map.";
  const data = [];
  if (joined) {
    const line = { type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip", showlegend: false, opacity: 0.55, line: { color: theme().soft, width: 1 } };
    for (const made of map.points.filter((point) => point.kind === "generated")) {
      const from = map.points.find((point) => point.kind === HARVESTED && point.task === made.task);
      if (from) { line.x.push(from.x, made.x, null); line.y.push(from.y, made.y, null); }
    }
    data.push(line);
  }
  Object.keys(LABELS.parts).forEach((part, index) => {
    for (const [kind, [symbol, title]] of Object.entries(SYMBOLS)) {
      const points = map.points.filter((point) => point.part === part && point.kind === kind);
      if (!points.length) continue;
      data.push({
        type: "scatter", mode: "markers", name: `${part}, ${title}`, x: points.map((p) => p.x), y: points.map((p) => p.y),
        customdata: points.map((p) => p.task), marker: { symbol, size: 9, color: theme().parts[index], line: { width: 1.6, color: theme().parts[index] } },
        hovertext: points.map((p) => `<b>${plain(p.task)}</b><br>${plain(part)}, ${title}`), hoverinfo: "text",
      });
    }
  });
  const [across, up] = map.explained.map((share) => (known(share) ? `${Math.round(100 * share)} %` : "–"));
  return {
    data,
    layout: layout({
      height: 440, showlegend: true,
      xaxis: axis({ title: `1st component, ${across} of the variance`, zeroline: false, showticklabels: false }),
      yaxis: axis({ title: `2nd component, ${up}`, zeroline: false, showticklabels: false, scaleanchor: "x" }),
    }),
  };
}
