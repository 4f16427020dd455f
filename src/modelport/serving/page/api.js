// Requests to the service, the key they carry, and what went wrong in words.

import { el, newId } from "./dom.js";

const KEY = "modelport.key";

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";

export function storeKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** The answer to one request: {status, ok, ms, headers, text}. Rejects with a TypeError when there is no connection. */
export async function send(url, { method = "GET", headers = {}, body, signal } = {}) {
  const all = new Headers(headers);
  if (storedKey() && !all.has("Authorization")) all.set("Authorization", `Bearer ${storedKey()}`);
  const started = performance.now();
  const response = await fetch(url, { method, headers: all, body, signal, cache: "no-store" });
  const text = await response.text();
  return { status: response.status, ok: response.ok, ms: performance.now() - started, headers: response.headers, text };
}

/** The same; where the service wants a key, the person is asked for it and the request sent again. Null when they decline. */
export async function sendWithKey(url, options) {
  let reply = await send(url, options);
  while (reply.status === 401) {
    const refused = storedKey() !== "";
    const key = await askKey(refused);
    if (key === null) return null;
    storeKey(key);
    reply = await send(url, options);
  }
  return reply;
}

function askKey(refused) {
  const field = el("input", { id: newId(), type: "password", autocomplete: "off", required: true, "aria-describedby": newId() });
  const words = refused ? "The service did not accept that key." : "This service answers those who have its API key.";
  const form = el("form", { method: "dialog" },
    el("h2", {}, "API key"),
    el("p", { role: refused ? "alert" : null, class: refused ? "error" : null }, words),
    el("label", { for: field.id }, "Key"), field,
    el("p", { class: "note", id: field.getAttribute("aria-describedby") }, "Kept in this tab until you close it."),
    el("div", { class: "row" },
      el("button", { class: "main", value: "use" }, "Continue"),
      el("button", { class: "quiet", type: "button", click: () => dialog.close() }, "Cancel")));
  const dialog = el("dialog", { "aria-label": "API key" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "use" && field.value ? field.value : null);
    });
  });
}

/** JSON with whole numbers beyond 2^53 kept exact, as BigInt, where the browser shows the source of a number. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value);
}

/** A value as JSON: the reverse of `parse`. */
export function toJson(value, indent = undefined) {
  return JSON.stringify(value, (key, part) => (typeof part === "bigint" ? JSON.rawJSON(String(part)) : part), indent);
}

/** A body for people to read: JSON indented, with every number as it came; anything else unchanged. */
export function pretty(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  const lines = [];
  let line = "";
  let depth = 0;
  const close = () => { lines.push("  ".repeat(depth) + line); line = ""; };
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|\{\s*\}|\[\s*\]|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    if (token === "}" || token === "]") {
      close();
      depth -= 1;
    }
    line += token === ":" ? ": " : token;
    if (token === "," || token === "{" || token === "[") {
      close();
      depth += token === "," ? 0 : 1;
    }
  }
  close();
  return lines.join("\n");
}

const WORDS = {
  401: "The service wants an API key.",
  403: "This key may not do that.",
  404: "There is no such address at this service.",
  413: "That is more than the service takes in one request.",
  429: "Too many requests just now.",
  500: "The model failed on these values.",
  503: "The service is not ready, or busy.",
  504: "The model took too long to answer.",
};

/** What an answer that is no success means: {title, detail, errors}. The service's own words (RFC 9457) are the detail. */
export function trouble(reply) {
  let problem = {};
  try {
    problem = JSON.parse(reply.text);
  } catch {
    problem = { detail: "" }; // something in between answered, a proxy perhaps
  }
  const wait = Number(reply.headers.get("Retry-After"));
  const again = wait > 0 ? ` Try again in ${wait} second${wait === 1 ? "" : "s"}.` : "";
  const id = reply.status >= 500 && problem.request_id ? `The request's id is ${problem.request_id}` : "";
  return {
    title: (WORDS[reply.status] ?? `${problem.title ?? "The service answered with an error"}.`) + again,
    detail: [problem.detail, problem.hint, id].filter((part) => typeof part === "string" && part).map(sentence).join(" "),
    errors: Array.isArray(problem.errors) ? problem.errors : [],
  };
}

/** Words as a sentence: with a capital and a full stop. */
export function sentence(words) {
  return capital(words) + (/[.!?]$/.test(words) ? "" : ".");
}

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** What an error thrown by `send` means. */
export function noConnection() {
  return {
    title: "The service cannot be reached.",
    detail: "Check your connection, and whether the service still runs; then try again.",
    errors: [],
  };
}
