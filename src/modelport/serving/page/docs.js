// The page at /docs: every operation of openapi.json with its schema and examples, a way to try it, and the call as code.

import { noConnection, parse, pretty, send, sendWithKey, storedKey, storeKey, toJson, trouble } from "./api.js";
import { codeTabs, copyButton, el, newId } from "./dom.js";
import { inline, markdown } from "./markdown.js";
import { samples } from "./samples.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options"];
const TELLING = ["content-type", "x-request-id", "x-model", "retry-after", "www-authenticate", "allow", "location"];
const SHOWN = 40; // properties of a schema, or names of an enumeration, before the rest is folded away
const page = document.getElementById("docs");

async function start() {
  let reply;
  try {
    reply = await sendWithKey("openapi.json");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return showFailure(noConnection());
  }
  if (reply === null) return showFailure({ title: "The description needs the API key of this service.", detail: "Reload to be asked again." });
  if (!reply.ok) return showFailure(trouble(reply));
  const api = parse(reply.text);
  document.title = `API: ${api.info.title}`;
  const operations = listOperations(api);
  const cards = new Map(operations.map((operation) => [operation.id, card(api, operation)]));
  page.replaceChildren(head(api), el("div", { class: "guide" }, contents(operations), el("div", { class: "operations" }, keyBox(api), ...grouped(operations, cards), protocols(api))));
  const follow = () => open(cards, decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", follow);
  if (!open(cards, decodeURIComponent(location.hash.slice(1)))) cards.get(operations.find(({ method }) => method === "post")?.id ?? operations[0].id).open = true;
}

function showFailure({ title, detail }) {
  page.replaceChildren(el("div", { class: "card apart", role: "alert" }, el("h1", {}, title), el("p", {}, detail),
    el("button", { type: "button", class: "main", click: () => location.reload() }, "Try again")));
}

function listOperations(api) {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => {
    const what = item[method];
    const parameters = [...(item.parameters ?? []), ...(what.parameters ?? [])].map((parameter) => resolve(api, parameter));
    return { id: what.operationId ?? `${method}-${path.slice(1)}`, method, path, what, parameters, tag: what.tags?.[0] ?? "" };
  }));
}

function head(api) {
  const version = api.info.version ? el("span", { class: "note" }, `version ${api.info.version}`) : null;
  return el("header", {},
    el("div", { class: "head" },
      el("div", {}, el("h1", {}, api.info.title), el("p", { class: "subtitle" }, "API reference ", version)),
      el("nav", { class: "doc-link", "aria-label": "Pages" }, el("a", { href: "./" }, "Page"), " ", el("a", { href: "openapi.json" }, "openapi.json"))),
    markdown(api.info.description, "description"));
}

function contents(operations) {
  const links = byTag(operations).map(([tag, some]) => [
    tag ? el("p", { class: "contents-tag" }, tag) : null,
    el("ul", {}, ...some.map((operation) => el("li", {}, el("a", { href: `#${encodeURIComponent(operation.id)}` }, method(operation), " ", operation.path)))),
  ]);
  return el("nav", { class: "contents", "aria-label": "Operations" }, ...links.flat().filter(Boolean));
}

function grouped(operations, cards) {
  return byTag(operations).flatMap(([tag, some]) => [tag ? el("h2", { class: "tag" }, tag) : null, ...some.map(({ id }) => cards.get(id))]).filter(Boolean);
}

/** The protocols of other servers in which the models can be asked too, as the document lists them. */
function protocols(api) {
  const list = api["x-modelport"]?.dialects ?? [];
  if (!list.length) return null;
  const rows = list.map(({ name, method: verb, path, spec }) => el("li", {}, el("span", { class: "method" }, verb), el("code", { class: "path" }, path),
    el("a", { class: "about", href: /^https:/.test(spec) ? spec : null, rel: "noreferrer" }, name)));
  return el("section", { class: "card protocols", "aria-labelledby": "protocols" }, el("h2", { id: "protocols" }, "Also in the protocols of other servers"), el("ul", {}, ...rows));
}

function byTag(operations) {
  const groups = new Map();
  for (const operation of operations) groups.set(operation.tag, [...(groups.get(operation.tag) ?? []), operation]);
  return [...groups];
}

const method = (operation) => el("span", { class: `method ${operation.method === "get" ? "reads" : ""}` }, operation.method.toUpperCase());

function keyBox(api) {
  if (!Object.keys(api.components?.securitySchemes ?? {}).length) return null;
  const field = el("input", { id: newId(), type: "password", autocomplete: "off", "aria-describedby": newId(), input: () => storeKey(field.value) });
  field.value = storedKey();
  return el("form", { class: "key", submit: (event) => event.preventDefault() }, el("label", { for: field.id }, "API key"), field,
    el("p", { class: "note", id: field.getAttribute("aria-describedby") }, "Sent with what you try here. Kept in this tab until you close it."));
}

/** Open the operation with that id and bring it into view; whether there is one. */
function open(cards, id) {
  const found = cards.get(id);
  if (!found) return false;
  found.open = true;
  found.scrollIntoView();
  found.querySelector("summary").focus({ preventScroll: true });
  return true;
}

/** One operation, closed; what is in it is built when it is first opened. */
function card(api, operation) {
  const summary = el("summary", {}, method(operation), el("code", { class: "path" }, operation.path), el("span", { class: "about" }, operation.what.summary ?? ""));
  const node = el("details", { class: "card operation", id: operation.id }, summary);
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(inside(api, operation)); });
  return node;
}

function inside(api, operation) {
  const request = new Request(api, operation);
  return el("div", { class: "inside" },
    el("div", { class: "reference" },
      markdown(operation.what.description),
      el("p", { class: "note" }, el("a", { href: `#${encodeURIComponent(operation.id)}` }, "Link to this")),
      parameterTable(api, operation.parameters),
      ...bodySchemas(api, operation.what),
      el("h3", {}, "Responses"),
      ...responses(api, Object.entries(operation.what.responses ?? {}))),
    el("div", { class: "trying" }, request.node, request.code.node));
}

function parameterTable(api, parameters) {
  if (!parameters.length) return null;
  const rows = parameters.map((parameter) => property(api, parameter.name, parameter.schema ?? {}, parameter.required, `${parameter.in}. ${parameter.description ?? ""}`));
  return el("div", {}, el("h3", {}, "Parameters"), el("ul", { class: "schema" }, ...rows));
}

function bodySchemas(api, what) {
  if (!what.requestBody) return [];
  const resolved = resolve(api, what.requestBody);
  const title = el("h3", {}, "Request body", resolved.required ? null : el("span", { class: "optional" }, " optional"));
  return [title, markdown(resolved.description), ...mediaViews(api, bodies(api, what))].filter(Boolean);
}

/** What an operation takes: by media type. CSV stands apart in the document, for JSON Schema cannot say what a table must hold. */
function bodies(api, what) {
  const content = resolve(api, what.requestBody ?? {}).content ?? {};
  return what["x-csv"] ? { ...content, "text/csv": what["x-csv"] } : content;
}

function responses(api, all) {
  const view = ([status, response]) => responseView(api, status, resolve(api, response));
  const errors = all.filter(([status]) => Number(status) >= 400);
  const folded = el("details", { class: "response" }, el("summary", {}, `Errors: ${errors.map(([status]) => status).join(", ")}`), el("div", { class: "errors" }, ...errors.map(view)));
  return [...all.filter(([status]) => !(Number(status) >= 400)).map(view), ...(errors.length ? [folded] : [])];
}

function responseView(api, status, response) {
  const media = Object.entries(response.content ?? {});
  const summary = [el("code", { class: "status" }, status), " ", ...inline(response.description ?? "")];
  if (!media.length) return el("p", { class: "response plain" }, ...summary);
  const node = el("details", { class: "response" }, el("summary", {}, ...summary));
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(...mediaViews(api, response.content)); });
  return node;
}

function mediaViews(api, content = {}) {
  return Object.entries(content).map(([type, media]) => el("div", { class: "media" }, el("p", { class: "note" }, el("code", {}, type)),
    markdown(media.description),
    media.schema ? schemaView(api, media.schema) : null,
    ...examplesOf(api, media).slice(0, 1).map(([, text]) => el("details", {}, el("summary", {}, "Example"), el("pre", { tabindex: "0", "aria-label": "Example" }, text)))));
}

// Schemas

function resolve(api, part) {
  let found = part;
  for (let hops = 0; found?.$ref && hops < 20; hops += 1) {
    const steps = found.$ref.split("/").slice(1).map((step) => decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~"));
    found = steps.reduce((at, step) => at?.[step], api);
  }
  return found ?? {};
}

const unions = (schema) => schema.oneOf ?? schema.anyOf ?? null;

function schemaView(api, raw) {
  const schema = resolve(api, raw);
  const some = unions(schema);
  if (some) return el("ul", { class: "schema" }, ...some.map((each, index) => el("li", {}, el("span", { class: "kind" }, words(api, each)), nested(api, each, index === 0))));
  if (schema.properties) return properties(api, schema);
  return el("div", {}, el("p", { class: "kind" }, words(api, schema)), nested(api, schema));
}

function properties(api, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties).map(([name, each]) => () => property(api, name, each, required.has(name), ""));
  const list = el("ul", { class: "schema" }, ...rows.slice(0, SHOWN).map((row) => row()));
  if (rows.length <= SHOWN) return list;
  const more = el("button", { type: "button", class: "quiet", click: () => { more.parentNode.remove(); list.append(...rows.slice(SHOWN).map((row) => row())); } }, `${rows.length - SHOWN} more`);
  list.append(el("li", {}, more));
  return list;
}

function property(api, name, raw, required, about) {
  const schema = resolve(api, raw);
  return el("li", {}, el("code", { class: "name" }, name), " ", el("span", { class: "kind" }, words(api, schema)),
    required ? null : el("span", { class: "optional" }, " optional"), markdown([about, schema.description].filter(Boolean).join(" ")), nested(api, schema));
}

/** What is inside an object or a list of objects, folded unless `open`. */
function nested(api, raw, open = false) {
  const schema = resolve(api, raw);
  const inner = schema.type === "array" || schema.items ? resolve(api, schema.items ?? {}) : schema;
  if (!inner.properties && !unions(inner)) return null;
  const node = el("details", { class: "nested", open }, el("summary", {}, inner.properties ? `${Object.keys(inner.properties).length} fields` : "one of"));
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(schemaView(api, inner)); });
  return node;
}

function words(api, raw) {
  const schema = resolve(api, raw);
  if (schema.const !== undefined) return toJson(schema.const);
  if (schema.enum) return `one of ${schema.enum.slice(0, SHOWN).map((value) => toJson(value)).join(", ")}${schema.enum.length > SHOWN ? ", …" : ""}`;
  const some = unions(schema);
  if (some) return some.map((each) => words(api, each)).join(" or ");
  const types = [schema.type ?? (schema.properties ? "object" : schema.items ? "array" : "any value")].flat();
  const named = types.map((type) => (type === "array" ? `list of ${plural(words(api, schema.items ?? {}))}` : type)).join(" or ");
  const limits = [["from", schema.minimum], ["above", schema.exclusiveMinimum], ["to", schema.maximum], ["below", schema.exclusiveMaximum]].filter(([, limit]) => limit !== undefined && Math.abs(Number(limit)) < 1e15).map((pair) => pair.join(" "));
  return [named, schema.format ? `(${schema.format})` : "", ...limits].filter(Boolean).join(" ");
}

const plural = (kind) => (["object", "string", "number", "integer", "boolean"].includes(kind) ? `${kind}s` : kind);

/** [[name, text], ...] of a media type: those it states, else one made from its schema. */
function examplesOf(api, media) {
  const text = (value) => (typeof value === "string" ? value : short(value));
  const stated = Object.entries(media.examples ?? {}).map(([name, raw]) => [raw.summary ?? name, text(resolve(api, raw).value)]);
  if (stated.length) return stated;
  const schema = resolve(api, media.schema ?? {});
  const one = media.example ?? schema.example ?? schema.examples?.[0] ?? sketch(api, schema, 0);
  return one === undefined ? [] : [["example", text(one)]];
}

const short = (value) => (toJson(value).length <= 60 ? toJson(value) : toJson(value, 2));

function sketch(api, raw, depth) {
  const schema = resolve(api, raw);
  if (depth > 6) return null;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const some = unions(schema);
  if (some) return sketch(api, some[0], depth + 1);
  const type = [schema.type].flat()[0];
  if (type === "object" || schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, each]) => [name, sketch(api, each, depth + 1)]));
  }
  if (type === "array") return [sketch(api, schema.items ?? {}, depth + 1)];
  return { number: 0, integer: 0, boolean: false, string: "" }[type];
}

// Trying

/** A request that can be edited and sent, and the same as code. */
class Request {
  constructor(api, operation) {
    this.operation = operation;
    this.keyed = Object.keys(api.components?.securitySchemes ?? {}).length > 0;
    const home = new URL("openapi.json", document.baseURI);
    this.base = new URL(api.servers?.[0]?.url ?? ".", home).href.replace(/\/?$/, "/");
    const changed = () => this.code.update();
    this.parameters = operation.parameters.map((parameter) => {
      const given = parameter.example ?? resolve(api, parameter.schema ?? {}).default ?? resolve(api, parameter.schema ?? {}).examples?.[0] ?? "";
      const control = el("input", { id: newId(), autocomplete: "off", spellcheck: "false", input: changed });
      control.value = String(given);
      return { ...parameter, control };
    });
    const all = Object.entries(bodies(api, operation.what));
    const pictures = all.map(([type]) => type).filter((type) => type.startsWith("image/"));
    const content = all.filter(([type]) => !type.startsWith("image/") && !type.startsWith("multipart/"));
    this.choices = content.flatMap(([type, media]) => {
      const examples = examplesOf(api, media);
      return (examples.length ? examples : [["", ""]]).map(([name, text]) => ({ type, name: examples.length > 1 || content.length > 1 ? `${name} (${type})` : type, text }));
    });
    if (pictures.length) this.choices.push({ type: pictures[0], name: "a picture", text: "", accept: pictures.join(",") });
    this.build(changed);
    this.code = codeTabs("Code", () => samples(this.describe()), "h3");
  }

  build(changed) {
    this.choice = el("select", { id: newId(), input: () => this.fill(changed) }, ...this.choices.map(({ name }, index) => el("option", { value: String(index) }, name)));
    this.body = el("textarea", { id: newId(), class: "code-text", spellcheck: "false", input: changed });
    this.file = el("input", { id: newId(), type: "file", input: changed });
    this.headers = el("textarea", { id: newId(), rows: "2", class: "code-text", spellcheck: "false", placeholder: "Name: value", input: changed });
    this.result = el("div", { class: "result", "aria-live": "polite" });
    const labelled = (label, control) => el("div", { class: "field" }, el("label", { class: "label", for: control.id }, label), control);
    this.text = labelled("Body", this.body);
    this.picture = labelled("Picture", this.file);
    this.node = el("form", { class: "try", "aria-label": "Try it", submit: (event) => { event.preventDefault(); this.go(); } },
      el("h3", {}, "Try it"),
      ...this.parameters.map(({ name, control }) => labelled(name, control)),
      ...(this.choices.length > 1 ? [labelled("Example", this.choice)] : []),
      ...(this.choices.length ? [this.text, this.picture] : []),
      el("details", {}, el("summary", {}, "More headers"), labelled("Headers, one in a line", this.headers)),
      el("div", { class: "row" }, el("button", { class: "main", type: "submit" }, "Send")),
      this.result);
    this.fill(() => {});
  }

  fill(changed) {
    if (this.choices.length) {
      const { text, accept } = this.chosen;
      this.text.hidden = Boolean(accept);
      this.picture.hidden = !accept;
      this.file.accept = accept ?? "";
      this.body.value = text;
      this.body.rows = Math.min(16, Math.max(4, this.body.value.split("\n").length + 1));
    }
    changed();
  }

  get chosen() {
    return this.choices[Number(this.choice.value)];
  }

  describe() {
    const used = (place) => this.parameters.filter((parameter) => parameter.in === place && parameter.control.value !== "");
    let path = this.operation.path;
    for (const { name, control } of this.parameters) path = path.replaceAll(`{${name}}`, encodeURIComponent(control.value));
    const url = new URL(path.slice(1), this.base);
    for (const { name, control } of used("query")) url.searchParams.set(name, control.value);
    const file = this.chosen?.accept ? (this.file.files[0] ?? new File([], "picture.jpg")) : null;
    const headers = this.choices.length ? { "Content-Type": file?.type || this.chosen.type } : {};
    for (const { name, control } of used("header")) headers[name] = control.value;
    for (const line of this.headers.value.split("\n")) {
      const [, name, value] = /^([^:\s]+)\s*:\s*(.*)$/.exec(line.trim()) ?? [];
      if (name) headers[name] = value;
    }
    return { method: this.operation.method.toUpperCase(), url: url.href, headers, body: file ?? (this.choices.length ? this.body.value : ""), key: this.keyed };
  }

  async go() {
    const { method: verb, url, headers, body } = this.describe();
    try {
      this.show(await send(url, { method: verb, headers, body: body || undefined }));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      const { title, detail } = noConnection();
      this.result.replaceChildren(el("p", { class: "error" }, `${title} ${detail}`));
    }
  }

  show(reply) {
    const code = el("code", {}, pretty(reply.text));
    const telling = TELLING.filter((name) => reply.headers.has(name)).map((name) => el("div", {}, el("dt", {}, name), el("dd", {}, reply.headers.get(name))));
    this.result.replaceChildren(
      el("p", { class: "card-head" }, el("strong", { class: reply.ok ? "" : "error" }, String(reply.status)), ` in ${reply.ms < 10 ? reply.ms.toFixed(1) : Math.round(reply.ms)} ms`, copyButton(() => code.textContent, code, "the answer")),
      el("dl", {}, ...telling),
      reply.text ? el("pre", { tabindex: "0", "aria-label": "Answer" }, code) : el("p", { class: "note" }, "No body."));
  }
}

await start();
