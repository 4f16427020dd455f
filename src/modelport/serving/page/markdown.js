// Markdown as elements. All of it becomes elements and text nodes of ours: HTML in it is shown as it is written, and nothing is loaded.

import { el } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?: {1,4}(?=\S)| *$)/;
const CODE = /^(?: {4}|\t)/;
const UNDERLINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/; // below the head of a table
const DEEPEST = 12;
// What stands between two marks has a bound: a mark that is never closed shall not be looked for through the whole text, again and again.
const INLINE = new RegExp([
  "(?<ticks>(?<!`)`{1,10}(?!`))(?<code>[^`](?:[\\s\\S]{0,2000}?[^`])?)\\k<ticks>(?!`)",
  "\\\\(?<escaped>[!-/:-@[-`{-~])",
  "!?\\[(?<label>(?:[^[\\]]|\\[[^[\\]]{0,500}\\]){0,2000})\\]\\(\\s*<?(?<target>[^\\s<>()]*(?:\\([^\\s()]*\\)[^\\s<>()]*)*)>?(?:\\s+\"[^\"]*\")?\\s*\\)",
  "<(?<address>(?:https?:|mailto:)[^\\s<>]+)>",
  "(?<bare>\\bhttps?://[^\\s<>]*[^\\s<>.,:;\"'`()[\\]?!*_])",
  "(?<strong>\\*\\*|(?<!\\w)__)(?=\\S)(?<bold>[\\s\\S]{0,2000}?\\S)\\k<strong>(?!\\k<strong>|(?<=_)\\w)",
  "(?<emphasis>\\*|(?<!\\w)_)(?=[^\\s*_])(?<slanted>[\\s\\S]{0,2000}?[^\\s*_])\\k<emphasis>(?!(?<=_)\\w)",
  "(?<broken> {2,}\\n|\\\\\\n)",
].join("|"), "g");

/** Markdown text in a block of class `name`; null where there is none. */
export function markdown(text, name = "prose") {
  const lines = (text ?? "").replaceAll("\r\n", "\n").replace(/\n{20,}/g, "\n\n").split("\n");
  return lines.some((line) => line.trim()) ? el("div", { class: name }, ...blocks(lines, 0)) : null;
}

/** One line of it. */
export const inline = (text) => spans(text, 0);

function blocks(lines, depth) {
  if (depth > DEEPEST) return [el("p", {}, lines.join("\n"))];
  const made = [];
  for (let at = 0; at < lines.length;) {
    const [node, next] = block(lines, at, depth);
    if (node) made.push(node);
    at = next;
  }
  return made;
}

/** The block that begins at a line, and the line behind it. */
function block(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence[1]);
  if (CODE.test(line)) return indented(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [el(`h${Math.min(6, heading[1].length + 1)}`, {}, ...spans(heading[2] ?? "", depth)), at + 1]; // h1 is the page's own
  if (RULE.test(line)) return [el("hr"), at + 1];
  if (QUOTE.test(line)) {
    const end = after(lines, at, (each) => QUOTE.test(each));
    return [el("blockquote", {}, ...blocks(lines.slice(at, end).map((each) => each.replace(QUOTE, "")), depth + 1)), end];
  }
  if (ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && UNDERLINE.test(lines[at + 1] ?? "") && cells(line).length === cells(lines[at + 1]).length) return table(lines, at, depth);
  const end = after(lines, at + 1, (each) => each.trim() && !interrupts(each));
  return [el("p", {}, ...spans(lines.slice(at, end).map((each) => each.trimStart()).join("\n").trimEnd(), depth)), end];
}

/** Whether a line ends the paragraph before it. Of numbered lists only a first item does: a line may well begin with a year. */
const interrupts = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || /^ {0,3}(?:[-*+]|1[.)]) +\S/.test(line);

/** The place of the first line from `at` on that is not `wanted`. */
function after(lines, at, wanted) {
  let end = at;
  while (end < lines.length && wanted(lines[end])) end += 1;
  return end;
}

function fenced(lines, at, mark) {
  const closes = (line) => new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`).test(line);
  const end = after(lines, at + 1, (line) => !closes(line));
  return [code(lines.slice(at + 1, end)), end + 1];
}

function indented(lines, at) {
  let end = after(lines, at, (line) => CODE.test(line) || !line.trim());
  while (!lines[end - 1].trim()) end -= 1;
  return [code(lines.slice(at, end).map((line) => line.replace(CODE, ""))), end];
}

const code = (lines) => el("pre", { tabindex: "0" }, el("code", {}, lines.join("\n")));

function list(lines, at, depth) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const start = ITEM.exec(lines[end]);
    if (!start || RULE.test(lines[end]) || /\d/.test(start[2]) !== ordered) break;
    const width = Math.min(start[0].length, start[1].length + start[2].length + 4);
    const inside = [lines[end].slice(start[0].length)];
    end += 1;
    while (end < lines.length && belongs(lines, end, width)) {
      inside.push(lines[end].replace(new RegExp(`^ {0,${width}}`), ""));
      end += 1;
    }
    loose ||= inside.slice(0, inside.findLastIndex((line) => line.trim())).some((line) => !line.trim());
    items.push(inside);
    const next = after(lines, end, (line) => !line.trim());
    if (next > end && next < lines.length && ITEM.test(lines[next])) {
      loose = true;
      end = next;
    }
  }
  const first = ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : 1;
  const tight = (nodes) => nodes.flatMap((node) => (node.tagName === "P" && !loose ? [...node.childNodes] : [node]));
  return [el(ordered ? "ol" : "ul", { start: first === 1 ? null : first }, ...items.map((item) => el("li", {}, ...tight(blocks(item, depth + 1))))), end];
}

/** Whether a line goes on with the list item before it: further in, empty with more of it behind, or the rest of its paragraph. */
function belongs(lines, at, width) {
  const inside = (line) => line.trim() && /^ */.exec(line)[0].length >= width;
  if (inside(lines[at])) return true;
  if (!lines[at].trim()) return inside(lines[after(lines, at, (line) => !line.trim())] ?? "");
  return Boolean(lines[at - 1].trim()) && !interrupts(lines[at]) && !ITEM.test(lines[at]);
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at, depth) {
  const head = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((cell) => (/^-+:$/.test(cell) ? "numeric" : null));
  const end = after(lines, at + 2, (line) => line.trim() && !interrupts(line));
  const row = (given, tag) => el("tr", {}, ...head.map((_, index) => el(tag, { scope: tag === "th" ? "col" : null, class: sides[index] }, ...spans(given[index] ?? "", depth))));
  const body = lines.slice(at + 2, end).map((line) => row(cells(line), "td"));
  return [el("div", { class: "table", tabindex: "0", role: "region", "aria-label": head.join(", ") }, el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, ...body))), end];
}

function spans(text, depth) {
  if (depth > DEEPEST) return [text];
  const made = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    made.push(soft(text.slice(last, match.index)), span(match.groups, match[0], depth + 1));
    last = match.index + match[0].length;
  }
  return [...made, soft(text.slice(last))];
}

/** A single end of a line is a space. */
const soft = (text) => text.replaceAll("\n", " ");

function span(found, whole, depth) {
  if (found.code !== undefined) return el("code", {}, soft(found.code).replace(/^ (.+) $/, "$1"));
  if (found.escaped !== undefined) return found.escaped;
  if (found.label !== undefined) return link(found.target, spans(found.label, depth)) ?? whole;
  if (found.address !== undefined) return link(found.address, [found.address.replace(/^mailto:/, "")]);
  if (found.bare !== undefined) return link(found.bare, [found.bare]);
  if (found.bold !== undefined) return el("strong", {}, ...spans(found.bold, depth));
  if (found.slanted !== undefined) return el("em", {}, ...spans(found.slanted, depth));
  return el("br");
}

/** A link to a page; null for an address of any other kind. A picture is a link too: the page loads nothing from elsewhere. */
function link(target, inside) {
  if (!URL.canParse(target, document.baseURI) || !["http:", "https:", "mailto:"].includes(new URL(target, document.baseURI).protocol)) return null;
  return el("a", { href: target, target: "_blank", rel: "noopener noreferrer" }, ...(inside.some(Boolean) ? inside : [target]));
}
