// A series as a curve: an output that is a list of numbers, or a list of records whose first field is a number or a date.

import { el } from "./dom.js";
import { number } from "./numbers.js";
import { columnsOf, isSeries, isTable } from "./tables.js";

const SVG = "http://www.w3.org/2000/svg";
const DAY = 86_400_000;
const BELOW = 28; // pixels for the labels of the axis below
const LETTER = 7; // about the width of a digit
const STEPS = [[DAY, "day"], [2 * DAY, "day"], [7 * DAY, "day"], [14 * DAY, "day"], [1, "month"], [2, "month"], [3, "month"], [6, "month"], [12, "month"]];
const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const months = new Intl.DateTimeFormat("en-GB", { month: "short", timeZone: "UTC" });
const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });

/** What of an output's records is drawn: {x, y, lower, upper}, names of columns; null where nothing is. */
export function axes(field) {
  if (isSeries(field)) return { x: null, y: field.name, lower: null, upper: null, time: false };
  if (!isTable(field)) return null;
  const columns = columnsOf(field);
  const numeric = ({ schema }) => ["number", "integer"].includes(schema.type);
  const time = ["date", "date-time"].includes(columns[0].schema.format);
  if (!time && !numeric(columns[0])) return null;
  const bounds = ["lower", "upper"].map((name) => columns.slice(1).find((column) => column.name === name && numeric(column)));
  const banded = bounds.every(Boolean);
  const y = columns.slice(1).find((column) => numeric(column) && !(banded && bounds.includes(column)));
  if (!y) return null;
  return { x: columns[0].name, y: y.name, lower: banded ? "lower" : null, upper: banded ? "upper" : null, time };
}

/** The curve of `value`, and what it shows in words beside it; its place only where `value` is null. */
export function drawCurve(field, value) {
  const names = axes(field);
  const points = value === null ? [] : pointsOf(names, value);
  const frame = el("div", { class: "curve-frame" });
  const key = el("figcaption", { class: "curve-key" });
  const tell = (point) => key.replaceChildren(...(point ? reading(names, point) : legend(names)));
  tell(null);
  const figure = el("figure", { class: "curve" }, frame, key);
  const draw = () => { if (frame.clientWidth) frame.replaceChildren(plot(names, points, frame.clientWidth, tell)); };
  new ResizeObserver(draw).observe(frame);
  return figure;
}

/** What a curve shows, in one sentence. */
export function sayCurve(field, value) {
  const names = axes(field);
  return `${field.name}: ${inWords(names, pointsOf(names, value))}`;
}

function inWords(names, points) {
  const known = points.filter(({ y }) => y !== null);
  if (!known.length) return "no values";
  const at = (point) => `${number(point.y)} at ${place(names, point.x)}`;
  const top = known.reduce((best, point) => (point.y > best.y ? point : best));
  return `${names.y} from ${at(known[0])} to ${at(known.at(-1))}, highest ${at(top)}`;
}

function pointsOf(names, value) {
  const given = (part) => (part === null || part === undefined ? null : Number(part));
  return value.map((row, index) => (names.x === null
    ? { x: index, y: given(row), low: null, high: null }
    : { x: names.time ? Date.parse(row[names.x]) : given(row[names.x]), y: given(row[names.y]), low: given(row[names.lower]), high: given(row[names.upper]) }))
    .filter(({ x }) => Number.isFinite(x));
}

function legend(names) {
  const line = [el("span", { class: "curve-line-key", "aria-hidden": "true" }), names.y];
  return names.lower ? [...line, el("span", { class: "curve-band-key", "aria-hidden": "true" }), `${names.lower} to ${names.upper}`] : line;
}

function reading(names, { x, y, low, high }) {
  const span = low === null || high === null ? "" : ` (${number(low)} to ${number(high)})`;
  return [el("span", {}, place(names, x)), el("strong", {}, y === null ? "none" : number(y)), span];
}

function place(names, x) {
  if (!names.time) return number(x);
  return (x % DAY ? moments : dates).format(x);
}

function plot(names, points, width, tell) {
  const height = Math.round(Math.min(320, Math.max(190, width * 0.55)));
  const heights = points.flatMap(({ y, low, high }) => [y, low, high]).filter((each) => each !== null);
  const [bottom, top, marks] = scale(heights, Math.max(2, Math.round(height / 60)));
  const left = LETTER * Math.max(...marks.map((mark) => number(mark).length)) + 10;
  const first = points.length ? points[0].x : 0;
  const last = points.length ? points.at(-1).x : 1;
  const [from, to] = [Math.min(first, last, ...points.map(({ x }) => x)), Math.max(first, last, ...points.map(({ x }) => x))];
  const across = (x) => left + (to === from ? 0.5 : (x - from) / (to - from)) * (width - left - 10);
  const up = (y) => height - BELOW - ((y - bottom) / (top - bottom)) * (height - BELOW - 10);
  const svg = shape("svg", { class: "curve-plot", width, height, role: "img", "aria-label": `Curve: ${inWords(names, points)}` });
  for (const mark of marks) {
    svg.append(shape("line", { class: "curve-grid", x1: left, x2: width - 10, y1: up(mark), y2: up(mark) }));
    if (points.length) svg.append(text(left - 8, up(mark) + 4, number(mark), "end"));
  }
  for (const [x, words] of points.length ? below(names, from, to, Math.floor((width - left) / 76)) : []) {
    const near = across(x) > width - 30 ? "end" : "middle";
    svg.append(text(near === "end" ? width - 4 : across(x), height - 8, words, near));
  }
  const band = points.filter(({ low, high }) => low !== null && high !== null);
  if (band.length > 1) {
    const edge = [...band.map(({ x, high }) => [x, high]), ...band.toReversed().map(({ x, low }) => [x, low])];
    svg.append(shape("polygon", { class: "curve-band", points: edge.map(([x, y]) => `${across(x)},${up(y)}`).join(" ") }));
  }
  for (const run of runs(points)) {
    svg.append(run.length > 1
      ? shape("polyline", { class: "curve-line", points: run.map(({ x, y }) => `${across(x)},${up(y)}`).join(" ") })
      : shape("circle", { class: "curve-dot", cx: across(run[0].x), cy: up(run[0].y), r: 3 }));
  }
  if (points.length) follow(svg, points, across, up, tell);
  return svg;
}

/** Show the point that is nearest to the pointer. */
function follow(svg, points, across, up, tell) {
  const line = shape("line", { class: "curve-cursor", y1: 10, y2: Number(svg.getAttribute("height")) - BELOW });
  const dot = shape("circle", { class: "curve-dot", r: 4 });
  const cursor = shape("g", { visibility: "hidden" });
  cursor.append(line, dot);
  svg.append(cursor);
  const move = (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    const nearest = points.reduce((best, point) => (Math.abs(across(point.x) - at) < Math.abs(across(best.x) - at) ? point : best));
    for (const [name, to] of [["x1", across(nearest.x)], ["x2", across(nearest.x)]]) line.setAttribute(name, to);
    dot.setAttribute("cx", across(nearest.x));
    dot.setAttribute("cy", up(nearest.y ?? 0));
    dot.setAttribute("visibility", nearest.y === null ? "hidden" : "inherit");
    cursor.setAttribute("visibility", "visible");
    tell(nearest);
  };
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); tell(null); });
}

/** The parts of a curve between values that are missing. */
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point.y === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length);
}

/** [lowest, highest, marks] of the axis at the side: round numbers, from zero where that costs little room. */
function scale(values, count) {
  if (!values.length) return [0, 1, [0, 1]];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && low < 0.5 * high) low = 0;
  if (high < 0 && high > 0.5 * low) high = 0;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
  const step = roundStep((high - low) / count);
  const [bottom, top] = [Math.floor(low / step), Math.ceil(high / step)];
  return [bottom * step, top * step, Array.from({ length: top - bottom + 1 }, (_, index) => Number(((bottom + index) * step).toPrecision(12)))];
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 5, 10].find((each) => each * power >= step * 0.999) ?? 10);
}

/** [[x, label], ...] of the axis below. */
function below(names, from, to, count) {
  if (from === to) return [[from, place(names, from)]];
  if (names.time) return timeMarks(from, to, Math.max(2, count));
  const step = Math.max(roundStep((to - from) / Math.max(2, count)), names.x === null ? 1 : 0);
  const start = Math.ceil(from / step);
  return Array.from({ length: Math.max(0, Math.floor(to / step) - start + 1) }, (_, index) => Number(((start + index) * step).toPrecision(12))).map((x) => [x, number(x)]);
}

function timeMarks(from, to, count) {
  if (to - from < 2 * DAY) return [[from, moments.format(from)], [to, moments.format(to)]].slice(0, count > 3 ? 2 : 1);
  const length = ([step, unit]) => (unit === "day" ? step : step * 30.44 * DAY);
  const [step, unit] = STEPS.find((each) => (to - from) / length(each) <= count) ?? [12 * Math.ceil((to - from) / (365 * DAY) / count), "month"];
  const marks = [];
  const at = new Date(from);
  let next = unit === "day" ? Math.ceil(from / DAY) * DAY : Date.UTC(at.getUTCFullYear(), Math.ceil((at.getUTCMonth() + (at.getUTCDate() > 1 ? 1 : 0)) / step) * step, 1);
  while (next <= to && marks.length < 40) {
    marks.push(next);
    const now = new Date(next);
    next = unit === "day" ? next + step : Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + step, 1);
  }
  return marks.map((mark) => [mark, unit === "day" ? days.format(mark) : new Date(mark).getUTCMonth() ? months.format(mark) : String(new Date(mark).getUTCFullYear())]);
}

function text(x, y, words, anchor) {
  const node = shape("text", { class: "curve-label", x, y, "text-anchor": anchor });
  node.textContent = words;
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
