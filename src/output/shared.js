"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
// As Python rounds: a half goes to the even digit. toFixed takes the upper one, which differs at x.25 alone:
// x.75 goes to x.8 either way, and no other half of a tenth is exact in binary.
const oneDecimal = value => (value % 1 === 0.25 ? value - 0.01 : value).toFixed(1);
const percent = share => share === null || share === undefined ? "–" : oneDecimal(100 * share);
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "g", "title"].includes(tag) && attributes.svg !== false;
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (name !== "svg") node.setAttribute(name, value);
  node.append(...children.map(child => child instanceof Node ? child : document.createTextNode(String(child))));
  return node;
}
function table(target, header, rows) {
  target.replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, ...header.map(cell => cell instanceof Node ? cell : make("th", {}, cell)))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map(cell => cell instanceof Node ? cell : make("td", {}, cell)))))));
}
const short = stage => stage.replace(/_/g, " ");
const badge = outcome => make("span", {class: "badge", style: `--k: var(--${outcome})`}, short(outcome));
const key = (name, colour) => make("span", {class: "key", style: `--k: ${colour}`}, name);

function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  return value => from + (to - from) * (value - low) / span;
}
// From two to five round values that hold all the given ones between the first and the last.
function roundTicks(low, high) {
  const span = high - low || Math.abs(high) || 1, unit = 10 ** Math.floor(Math.log10(span / 2));
  const step = [1, 2, 2.5, 5, 10].map(times => times * unit).find(one => Math.ceil(high / one - 1e-9) - Math.floor(low / one + 1e-9) <= 4);
  const first = Math.floor(low / step + 1e-9), last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({length: last - first + 1}, (_, place) => (first + place) * step);
}
const plain = value => Math.abs(value) >= 1000 ? value.toLocaleString("en") : +value.toPrecision(3) + "";

function lineChart(chart) {
  const [left, right, top, bottom] = [44, 312, 8, 150];
  const points = chart.series.flatMap(series => series.points);
  const ys = points.map(p => p[1]), rate = ys.every(y => y >= 0 && y <= 1);
  const ticks = roundTicks(rate ? 0 : Math.min(...ys), Math.max(...ys));
  const x = scale(points.map(p => p[0]), left, right), y = scale(ticks, bottom, top);
  const svg = make("svg", {viewBox: "0 0 320 178", role: "img", "aria-label": chart.title});
  for (const tick of ticks)
    svg.append(make("line", {class: "axis", x1: left, x2: right, y1: y(tick), y2: y(tick)}),
      make("text", {x: left - 4, y: y(tick) + 4, "text-anchor": "end"}, plain(tick)));
  const xs = points.map(p => p[0]);
  for (const [tick, anchor] of [[Math.min(...xs), "start"], [Math.max(...xs), "end"]])
    svg.append(make("text", {x: x(tick), y: 166, "text-anchor": anchor}, plain(tick)));
  svg.append(make("text", {x: (left + right) / 2, y: 176, "text-anchor": "middle"}, chart.x));
  chart.series.forEach((series, number) => {
    const colour = `var(--c${number % 6})`;
    if (series.line !== false && series.points.length > 1)
      svg.append(make("path", {fill: "none", stroke: colour, "stroke-width": 1.6,
        d: series.points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("")}));
    if (series.points.length < 25)
      for (const p of series.points)
        svg.append(make("circle", {cx: x(p[0]), cy: y(p[1]), r: 2.6, fill: colour}, make("title", {}, `${series.name}: ${plain(p[1])} at ${plain(p[0])}`)));
  });
  return make("figure", {}, make("figcaption", {}, chart.title), svg,
    make("div", {}, ...chart.series.map((series, number) => key(series.name, `var(--c${number % 6})`))));
}
