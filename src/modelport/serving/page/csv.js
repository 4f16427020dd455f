// A file of rows: read, asked in parts, and given back with the answers beside them.

import { sendWithKey, trouble } from "./api.js";

const MARK = "\ufeff"; // before UTF-8, as spreadsheets write it and want it
const SEPARATORS = [",", ";", "\t"];
const PART = { rows: 5000, characters: 2_000_000 }; // in one request
const TOLD = 10; // wrong values that are told

/** A file as {separator, marked, header, rows: [{cells, line}]}; `names` are the fields that are looked for in its header.
    Throws a Refused for what is no such file. */
export function readCsv(bytes, names) {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) throw new Refused("This is a workbook or an archive, and no CSV file.", "In a spreadsheet, save it as “CSV UTF-8”.");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused("The file is not text in UTF-8.", "In a spreadsheet, save it as “CSV UTF-8”.");
  }
  const marked = text.startsWith(MARK);
  const plain = marked ? text.slice(1) : text;
  const first = plain.split(/[\r\n]/, 1)[0];
  const known = (separator) => first.split(separator).filter((name) => names.includes(name.replace(/^"(.*)"$/, "$1"))).length;
  const separator = SEPARATORS.reduce((best, each) => (known(each) > known(best) ? each : best));
  const [head, ...rows] = lines(plain, separator);
  if (!head) throw new Refused("The file is empty.");
  const ragged = rows.find(({ cells }) => cells.length !== head.cells.length);
  if (ragged) throw new Refused(`Line ${ragged.line} has ${ragged.cells.length} cell${ragged.cells.length === 1 ? "" : "s"}, and the header has ${head.cells.length}.`);
  if (!rows.length) throw new Refused("The file has a header and no rows.");
  return { separator, marked, header: head.cells, rows };
}

/** The rows of RFC 4180, each with the line on which it begins; lines with nothing on them are none. */
function lines(text, separator) {
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"|((?!")[^${separator}\\r\\n]*))(${separator}|\\r\\n|\\n|\\r|$)`, "y");
  const rows = [];
  let cells = [];
  let line = 1;
  let begun = 1;
  while (cell.lastIndex < text.length || cells.length) {
    const at = cell.lastIndex;
    const match = cell.exec(text);
    if (!match) throw new Refused(`Line ${begun}: a quote does not end where its cell does.`);
    line += match[0].match(/\r\n|\n|\r/g)?.length ?? 0;
    cells.push(match[1] === undefined ? match[2] : match[1].replaceAll('""', '"'));
    if (match[3] === separator) continue;
    if (cells.length > 1 || cell.lastIndex - at > match[3].length) rows.push({ cells, line: begun });
    [cells, begun] = [[], line];
  }
  return rows;
}

export function writeCsv(rows, separator) {
  const quoted = (cell) => (/["\r\n]/.test(cell) || cell.includes(separator) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((cells) => `${cells.map(quoted).join(separator) || '""'}\r\n`).join(""); // a line with nothing on it is no row
}

/** Ask for all rows of a file: {header, rows, kept, left}. `kept` is how many columns of the file stand before the answers; `left` are those
    that the model does not take, which are not sent. Null when no key was given; throws a Refused for what the service did not take.
    `told(count)` hears how many are answered. */
export async function askCsv(file, names, url, { signal, told }) {
  const taken = file.header.map((name, index) => [name, index]).filter(([name]) => names.includes(name));
  const sent = taken.length ? taken : file.header.map((name, index) => [name, index]); // then the service says what it wants
  const head = sent.map(([name]) => name);
  let header = null;
  const rows = [];
  for (const part of parts(file.rows)) {
    const body = writeCsv([head, ...part.map(({ cells }) => sent.map(([, index]) => cells[index]))], ",");
    const reply = await sendWithKey(url, { method: "POST", headers: { "Content-Type": "text/csv", Accept: "text/csv" }, body, signal });
    if (reply === null) return null;
    if (!reply.ok) throw refused(trouble(reply), part);
    const [first, ...answers] = lines(reply.text, ",");
    if (answers.length !== part.length) throw new Refused("The service answered with another number of rows.");
    header ??= first.cells.map((name) => (file.header.includes(name) ? `predicted_${name}` : name));
    part.forEach(({ cells }, index) => rows.push([...cells, ...answers[index].cells]));
    told(rows.length);
  }
  return { header: [...file.header, ...header], rows, kept: file.header.length, left: file.header.filter((name) => !names.includes(name)) };
}

function* parts(rows) {
  let part = [];
  let size = 0;
  for (const row of rows) {
    const own = row.cells.reduce((sum, cell) => sum + cell.length + 1, 0);
    if (part.length && (part.length === PART.rows || size + own > PART.characters)) {
      yield part;
      [part, size] = [[], 0];
    }
    part.push(row);
    size += own;
  }
  yield part;
}

/** What is wrong with a file, in words: its `message`, a `hint`, and `errors` one by one. */
export class Refused extends Error {
  constructor(message, hint = "", errors = []) {
    super(message);
    Object.assign(this, { hint, errors });
  }
}

/** What the service did not take of a part, with the line of the file before each error. */
function refused({ title, detail, errors }, part) {
  if (!errors.length) return new Refused(title, detail);
  const placed = errors.map(({ pointer, detail: words }) => {
    const [, row, ...inside] = String(pointer ?? "").split("/");
    const { line } = part[row] ?? { line: 0 };
    const field = line ? inside : [row, ...inside]; // what is wrong with a whole column has no row
    return { line, name: field.join("/").replaceAll("~1", "/").replaceAll("~0", "~"), words };
  });
  const told = placed.toSorted((one, other) => one.line - other.line).slice(0, TOLD)
    .map(({ line, name, words }) => [line ? [`Line ${line}`, name].filter(Boolean).join(", ") : name && `Column ${name}`, words].filter(Boolean).join(": "));
  const more = errors.length > TOLD ? [`and ${errors.length - TOLD} more`] : [];
  return new Refused(errors.length === 1 ? "One value does not fit; nothing was answered." : `${errors.length} values do not fit; nothing was answered.`, "", [...told, ...more]);
}

/** The file with its answers as bytes. */
export const asBlob = ({ header, rows }, { separator, marked }) =>
  new Blob([(marked ? MARK : "") + writeCsv([header, ...rows], separator)], { type: "text/csv;charset=utf-8" });
