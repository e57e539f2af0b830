"use strict";
// The data, the colours of light and dark, and what every chart has in common.

const RESULT = JSON.parse(document.getElementById("result-json").textContent);
const LABELS = JSON.parse(document.getElementById("labels-json").textContent);
const METHODS = new Map(RESULT.methods.map((method) => [method.name, method]));
const TASKS = new Map(RESULT.tasks.map((task) => [task.name, task]));
const SCORES = new Map(RESULT.scores.map((score) => [JSON.stringify([score.task, score.method]), score]));
const HARVESTED = "harvested";

const LIGHT = {
  ink: "#1b1f24", soft: "#5a6472", line: "#dde1e6", paper: "#ffffff", raised: "#f5f6f8", accent: "#1f5fa8",
  uses: ["#848b96", "#2a6fbb", "#c47500", "#14866d", "#7b4aa5"],
  heat: [[0, "#f2f5f9"], [1, "#62a0e0"]],
  parts: ["#2a6fbb", "#c47500", "#b3261e", "#14866d"],
  many: ["#2a6fbb", "#c47500", "#14866d", "#7b4aa5", "#b3261e", "#6b7280", "#a8871b", "#c2498b", "#1797ad", "#8a5a3c"],
};
const DARK = {
  ink: "#e6e9ed", soft: "#a0a9b5", line: "#333a43", paper: "#14171b", raised: "#1d2126", accent: "#7db4f5",
  uses: ["#99a1ac", "#6aaaf2", "#eda548", "#4ec2a5", "#b892e2"],
  heat: [[0, "#1c2128"], [1, "#3070c0"]],
  parts: ["#6aaaf2", "#eda548", "#ff8a80", "#4ec2a5"],
  many: ["#6aaaf2", "#eda548", "#4ec2a5", "#b892e2", "#ff8a80", "#a0a9b5", "#d9c25a", "#ef8fc3", "#56cfe1", "#c99a7a"],
};
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif';
const darkness = matchMedia("(prefers-color-scheme: dark)");
const printing = matchMedia("print");
let onPaper = printing.matches;

const theme = () => (darkness.matches && !onPaper ? DARK : LIGHT);
const narrow = () => !onPaper && innerWidth < 760;
const scoreOf = (task, method) => SCORES.get(JSON.stringify([task, method]));
const titleOf = (method) => (METHODS.has(method) ? METHODS.get(method).title : method);
const useOf = (method) => LABELS.uses.indexOf(METHODS.get(method).uses);
const known = (value) => value !== null && value !== undefined;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Text as plotly shall show it: it reads tags and entities in its labels, and names are anyone's. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** A name that fits beside an axis. */
function short(text, room) {
  const characters = Array.from(String(text));
  return plain(characters.length > room ? characters.slice(0, room - 1).join("") + "…" : text);
}

/** A number as in the page's tables. */
function number(value) {
  if (!known(value)) return "–";
  const digits = Math.abs(value) < 10 ? 2 : Math.abs(value) < 1000 ? 1 : 0;
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", /[1-9]/.test(text) ? "−" : "");
}

const between = (figure) => `${number(figure.low)} to ${number(figure.high)}`;

/** Bytes in the unit that suits them. */
function size(bytes) {
  for (const [unit, each] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= each) return `${(bytes / each).toFixed(2)} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** An axis in the colours of the page. */
function axis(changes) {
  const { ink, soft, line } = theme();
  return {
    gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { color: ink }, automargin: true,
    fixedrange: true, ticks: "", ticklabelstandoff: 6, exponentformat: "e", ...changes,
    title: changes.title ? { text: changes.title, font: { color: soft, size: 12 }, standoff: 8 } : undefined,
  };
}

/** A layout in the colours of the page. */
function layout(changes) {
  const { ink, line, raised } = theme();
  return {
    font: { family: FONT, size: 12.5, color: ink }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 12, t: 8, b: 8 }, showlegend: false, dragmode: false, hovermode: "closest", autosize: true,
    hoverlabel: { bgcolor: raised, bordercolor: line, font: { family: FONT, color: ink }, align: "left" },
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", itemclick: "toggle", font: { color: ink } },
    ...changes,
  };
}

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
const drawn = new Map();

/** Draw a chart with what ``build`` returns, traces and layout, or the sentence that takes their place. */
function draw(id, build) {
  const place = document.getElementById(id);
  if (!place) return;
  drawn.set(id, build);
  const found = build();
  const sentence = document.getElementById(`${id}-empty`);
  const empty = typeof found === "string";
  place.parentElement.hidden = empty;
  if (sentence) {
    sentence.hidden = !empty;
    sentence.textContent = empty ? found : "";
  }
  if (empty) {
    Plotly.purge(place);
    return;
  }
  place.style.minWidth = found.minWidth ? `${found.minWidth}px` : "";
  place.style.height = `${found.layout.height}px`;
  Plotly.react(place, found.data, found.layout, CONFIG);
}

function redraw() {
  for (const [id, build] of drawn) draw(id, build);
}

/** Paper is white and narrower than most screens. */
function toPaper(now) {
  if (onPaper === now) return;
  onPaper = now;
  redraw();
}
