// Records as a table, and a series as one of a single column.

import { toJson } from "./api.js";
import { el } from "./dom.js";
import { number } from "./numbers.js";

const SHOWN = 500; // rows

/** Whether an output is a list of records whose fields are known. */
export const isTable = (field) => field.kind === "json" && field.schema?.type === "array" && Object.keys(field.schema.items?.properties ?? {}).length > 0;

/** Whether an output is a list of numbers, of any length. */
export const isSeries = (field) => field.shape?.length === 1 && field.shape[0] < 0 && !field.choices?.length;

/** The fields of a table's records, in their order: [{name, schema}, ...]. */
export function columnsOf(field) {
  const { properties, required = [] } = field.schema.items;
  const names = [...required, ...Object.keys(properties).filter((name) => !required.includes(name))];
  return names.map((name) => ({ name, schema: bare(properties[name]) }));
}

/** A schema without the null that it may be as well. */
function bare(schema) {
  const given = schema.anyOf?.find((each) => each.type !== "null") ?? schema;
  return Array.isArray(given.type) ? { ...given, type: given.type.find((each) => each !== "null") } : given;
}

/** The rows of `value`; one empty row where it is null. */
export function drawTable(field, value) {
  const columns = isTable(field) ? columnsOf(field) : [{ name: field.name, schema: { type: "number" } }];
  const rows = value === null ? [null] : value.slice(0, SHOWN);
  const kind = ({ schema }) => (["number", "integer"].includes(schema.type) ? "numeric" : schema.format ? "unbroken" : null);
  const part = (row, name) => (row === null ? "–" : cell(isTable(field) ? row[name] : row));
  const head = el("tr", {}, ...columns.map((column) => el("th", { scope: "col", class: kind(column), title: column.schema.description }, column.name)));
  const body = rows.map((row) => el("tr", {}, ...columns.map((column) => el("td", { class: kind(column) }, part(row, column.name)))));
  const more = value && value.length > SHOWN ? el("p", { class: "note" }, `The first ${SHOWN} of ${number(value.length)} rows; the exact answer has them all.`) : null;
  return el("div", {},
    el("div", { class: "table", tabindex: "0", role: "region", "aria-label": field.name }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))), more);
}

/** Rows of texts under a header; numbers among them stand to the right, in a few digits. */
export function drawRows(header, rows, name) {
  const kinds = header.map((_, at) => (rows.every((row) => row[at] === "" || Number.isFinite(Number(row[at]))) ? "numeric" : null));
  const short = (text, at) => (kinds[at] && /\.\d{6,}/.test(text) ? number(Number(text)) : text);
  const line = (cells, tag) => el("tr", {}, ...cells.map((text, at) =>
    el(tag, { scope: tag === "th" ? "col" : null, class: kinds[at] ?? "unbroken" }, short(text, at))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": name },
    el("table", {}, el("thead", {}, line(header, "th")), el("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

function cell(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number" || typeof value === "bigint") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" ? toJson(value) : value;
}
