// The model's answer for people: values large, class probabilities as sorted bars. Drawn empty first, in the same room.

import { toJson } from "./api.js";
import { axes, drawCurve, sayCurve } from "./curves.js";
import { el } from "./dom.js";
import { number } from "./numbers.js";
import { drawTable, isSeries, isTable } from "./tables.js";

const SHOWN = 6; // bars before the rest is folded away
const percents = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** The outputs with the values of `record`; with dashes in the same places where it is null. */
export function drawAnswer(outputs, record) {
  const scalars = outputs.filter((field) => !isVector(field) && !isDeep(field));
  const values = new Set(scalars.flatMap((field) => record?.[field.name] ?? []).map(String));
  return outputs.map((field) => {
    const value = record === null ? null : record[field.name];
    if (isVector(field)) return drawBars(field, value, values, record === null);
    if ((isTable(field) || isSeries(field)) && (record === null || value !== null)) return drawRows(field, value);
    if (isDeep(field)) return drawDeep(field, value, record === null);
    return drawScalar(field, value, record === null, scalars.length > 3);
  });
}

/** The answer in one sentence, for those who hear the page. */
export function sayAnswer(outputs, record) {
  return outputs.map((field) => {
    const value = record[field.name];
    if (value !== null && axes(field)) return sayCurve(field, value);
    if (value !== null && isTable(field)) return `${field.name}: ${value.length} rows`;
    if (!isVector(field) || value === null) return `${field.name}: ${typeof value === "object" ? toJson(value).slice(0, 200) : String(value)}`;
    const [name, share] = sorted(value)[0];
    return `${field.name}: ${name} ${isShare(field, value) ? percent(share) : number(share)}`;
  }).join(". ");
}

/** The answer in as few words as there are, for the gallery and the history: the label with its share, the first value, or what it is. */
export function headline(outputs, record) {
  const vector = outputs.find((field) => isVector(field) && record[field.name]);
  const scalar = outputs.find((field) => !isVector(field) && !isDeep(field));
  const value = scalar && record[scalar.name];
  const words = value === undefined || value === null ? "" : typeof value === "number" ? number(value) : text(value);
  if (!vector) return words || sayAnswer(outputs, record);
  const [name, share] = sorted(record[vector.name])[0];
  return `${words && words !== name ? words : name} ${isShare(vector, record[vector.name]) ? percent(share) : number(share)}`;
}

/** Whether an answer wants more room than a few numbers do. */
export const isWide = (outputs) => outputs.some((field) => isTable(field) || isSeries(field));

const isVector = (field) => field.shape?.length === 1 && field.choices?.length > 0;

/** Whether an answer is some of several labels. */
const isLabels = (field) => field.kind === "json" && field.schema?.items?.enum?.length > 0;

const isDeep = (field) => !isLabels(field) && (field.shape?.length > 0 || field.kind === "json" || field.kind === "tensor");

const text = (value) => (Array.isArray(value) ? value.join(", ") || "none" : String(value));

function drawScalar(field, value, empty, small) {
  const shown = empty ? "–" : value === null ? "none" : typeof value === "number" || typeof value === "bigint" ? number(value) : text(value);
  const numeric = field.kind === "number" || field.kind === "integer";
  const exact = !empty && numeric && value !== null && shown.replaceAll(",", "") !== String(value) ? `exactly ${value}` : "";
  return el("div", { class: small ? "output small" : "output" },
    el("p", { class: "output-name" }, field.name),
    el("p", { class: `value${empty ? " empty" : ""}${shown.length > 24 ? " long" : ""}` }, shown),
    field.kind === "number" ? el("p", { class: "exact" }, exact || "\u00a0") : null);
}

/** A table; where it is a curve, that, with the table folded away below it. */
function drawRows(field, value) {
  const name = el("p", { class: "output-name" }, field.name);
  if (!axes(field)) return el("div", { class: "output" }, name, drawTable(field, value));
  const count = value === null ? "–" : `${number(value.length)} row${value.length === 1 ? "" : "s"}`;
  return el("div", { class: "output" }, name, drawCurve(field, value), el("details", { class: "fold" }, el("summary", {}, `As a table: ${count}`), drawTable(field, value)));
}

function drawBars(field, value, values, empty) {
  const pairs = value ? sorted(value) : field.choices.map((name) => [String(name), null]);
  const share = value ? isShare(field, value) : true;
  const most = Math.max(...pairs.map(([, each]) => Math.abs(Number(each))), Number.MIN_VALUE);
  const rows = pairs.map(([name, each]) => {
    const bar = el("span", { class: "bar" });
    bar.style.width = each === null ? "0" : `${(100 * Math.abs(Number(each))) / (share ? 1 : most)}%`;
    return el("li", { class: values.has(name) && !empty ? "chosen" : null },
      el("span", { class: "bar-name" }, name),
      el("span", { class: "bar-value", title: each === null ? null : String(each) }, each === null ? "–" : share ? percent(each) : number(each)),
      el("span", { class: "track", "aria-hidden": "true" }, bar));
  });
  const folded = rows.slice(SHOWN);
  return el("div", { class: "output" },
    el("p", { class: "output-name" }, field.name),
    el("ol", { class: "bars" }, ...rows.slice(0, SHOWN)),
    folded.length ? el("details", { class: "fold" }, el("summary", {}, `${folded.length} more`), el("ol", { class: "bars" }, ...folded)) : null);
}

function drawDeep(field, value, empty) {
  return el("div", { class: "output" },
    el("p", { class: "output-name" }, field.name),
    el("pre", { class: "deep", tabindex: "0", "aria-label": field.name }, empty ? "–" : toJson(value, Array.isArray(value) ? undefined : 2)));
}

function sorted(value) {
  return Object.entries(value).sort(([, one], [, other]) => Number(other) - Number(one));
}

/** Whether the numbers are shares of one, to be shown as percentages. */
function isShare(field, value) {
  const numbers = Object.values(value).map(Number);
  const sum = numbers.reduce((all, each) => all + each, 0);
  return numbers.every((each) => each >= 0 && each <= 1) && (Math.abs(sum - 1) < 0.01 || field.name.startsWith("probabilit"));
}

/** A share as a percentage that never rounds to a certainty it is not. */
function percent(share) {
  if (share === 0 || share === 1) return `${100 * share}%`;
  if (share < 0.0005) return "< 0.1%";
  if (share > 0.9995) return "> 99.9%";
  return percents.format(share);
}
