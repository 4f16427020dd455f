// The page at /: a form made from the model's signature, the answer beside it, the same call as code. Several models: a list of them.

import { drawAnswer, headline, isWide, sayAnswer } from "./answer.js";
import { noConnection, parse, pretty, sendWithKey, sentence, storedKey, trouble } from "./api.js";
import { askCsv, asBlob, readCsv, Refused } from "./csv.js";
import { codeTabs, copyButton, el, newId } from "./dom.js";
import { advice, Input, record } from "./fields.js";
import { History } from "./history.js";
import { markdown } from "./markdown.js";
import { number } from "./numbers.js";
import { PictureInput } from "./pictures.js";
import { clientSample, samples } from "./samples.js";
import { drawRows } from "./tables.js";

const MANY = 12; // fields from which the form has a filter and scrolls by itself
const GROUP = 40; // fields in a group that is built when it is opened
const LONG = 700; // characters of a description that stand above the form
const LANES = 3; // pictures that are asked for at once
const PREVIEW = { rows: 8, columns: 40 }; // of a file that is given back
const page = document.getElementById("page");

async function start() {
  let reply;
  try {
    reply = await sendWithKey("./", { headers: { Accept: "application/json" } });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return showFailure(noConnection());
  }
  if (reply === null) return showFailure({ title: "The page needs the API key of this service.", detail: "Reload to be asked again." });
  if (!reply.ok) return showFailure(trouble(reply));
  const about = parse(reply.text);
  document.title = about.title || about.name || "Models";
  page.replaceChildren(...(about.models ? showModels(about) : showService(about)));
}

function showFailure({ title, detail }) {
  page.replaceChildren(el("div", { class: "card apart", role: "alert" }, el("h1", {}, title), el("p", {}, detail),
    el("button", { type: "button", class: "main", click: () => location.reload() }, "Try again")));
}

function showModels({ models, title, subtitle }) {
  const entries = models.map((model) => el("li", { class: "card" },
    el("h2", {}, el("a", { href: `models/${encodeURIComponent(model.name)}/` }, model.title || model.name)),
    el("p", {}, model.subtitle || ""),
    el("p", { class: "note" }, named(model))));
  return [header({ title: title || "Models", subtitle: subtitle || `${models.length} models are served here.` }, null), el("ul", { class: "models" }, ...entries)];
}

function showService(about) {
  const functions = about.functions ?? [{ name: "", description: "", signature: about.signature }];
  const main = functions[0];
  const parts = functions.length > 1 ? showFunctions(functions) : showFunction(main, "", about.fetches_urls);
  const described = about.functions && main.description === about.description ? "" : about.description;
  const { first, more } = description(described);
  return [header(about, first), ...parts, more, footer(about)].filter(Boolean);
}

/** What the model is, as {first, more}: where that is long its first paragraph stands at the top, and the rest in a card below. */
function description(text) {
  const whole = markdown(text, "description");
  if (!whole || (whole.textContent.length < LONG && whole.children.length <= 3)) return { first: whole, more: null };
  const title = el("h2", { id: newId() }, "About");
  const card = el("section", { class: "card", tabindex: "-1", "aria-labelledby": title.id }, el("div", { class: "card-head" }, title), whole);
  const show = () => {
    card.scrollIntoView({ block: "start" });
    card.focus({ preventScroll: true });
  };
  const opening = [...whole.children].slice(0, 2).find((node) => node.tagName === "P" && node.textContent.length < LONG);
  const link = el("button", { type: "button", class: "link", click: show }, opening ? "More about it" : "About it");
  return { first: el("div", { class: "description" }, opening, el("p", {}, link)), more: card };
}

/** Several functions: each has a form and an answer of its own, and an address. */
function showFunctions(functions) {
  const place = el("div", { class: "function" });
  const built = new Map();
  const links = functions.map(({ name }) => el("a", { href: `#${encodeURIComponent(name)}` }, name));
  const choose = () => {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const chosen = functions.find(({ name }) => name === wanted) ?? functions[0];
    links.forEach((link, index) => {
      if (functions[index] === chosen) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
    if (!built.has(chosen)) built.set(chosen, [markdown(chosen.description, "description"), ...showFunction(chosen, chosen.name === "predict" ? "" : chosen.name)]);
    place.replaceChildren(...built.get(chosen).filter(Boolean));
  };
  addEventListener("hashchange", choose);
  choose();
  return [el("nav", { class: "tabs functions", "aria-label": "Functions" }, ...links), place];
}

/** The form of a model or of one of its functions, the answer, and the call as code. `asked` is the name to ask it by; "" where it needs none.
    `urls` says whether the service fetches pictures. */
function showFunction({ signature }, asked, urls = false) {
  const url = new URL(asked || "predict", document.baseURI).href;
  const form = new Form(signature.inputs, () => { answer.outdated(); renew(); }, {
    urls, chosen: (picture) => { answer.look(picture); renew(); }, brought: (file) => answer.askFile(url, file),
  });
  const history = new History();
  const answer = new Answer(signature.outputs, form, history);
  const base = new URL("./", document.baseURI).href.replace(/\/$/, "");
  const codeNow = () => {
    const key = storedKey() !== "";
    const { headers, shown, record: given } = form.call();
    const [curl, python, javascript] = samples({ url, headers, body: shown, key });
    return [curl, ["Python", clientSample({ url: base, body: given, key, asked })], ["requests", python[1]], javascript];
  };
  const code = codeTabs("The same call in code", codeNow);
  let waiting = 0;
  function renew() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(code.update);
  }
  form.node.addEventListener("submit", async (event) => {
    event.preventDefault();
    await answer.ask(url);
    code.update();
  });
  return [el("div", { class: isWide(signature.outputs) ? "work wide" : "work" }, form.node, answer.node), code.node, history.node];
}

function header(about, described) {
  return el("header", {},
    el("div", { class: "head" },
      el("div", {}, el("h1", {}, about.title || about.name), about.subtitle ? el("p", { class: "subtitle" }, about.subtitle) : null),
      el("a", { class: "doc-link", href: "docs" }, "API docs")),
    described);
}

function footer(about) {
  const digest = about.digest || "";
  const short = digest.replace(/^(sha256:.{12}).*$/, "$1…");
  return el("footer", {},
    el("span", {}, named(about)),
    about.framework ? el("span", {}, about.framework) : null,
    digest ? el("span", { class: "digest" }, el("code", { title: digest }, short), copyButton(() => digest, null, "the digest")) : null);
}

const named = (about) => (about.version ? `${about.name}:${about.version}` : about.name);

/** The form: all inputs, whether they are shown or not. `urls` says whether the service fetches pictures; `chosen` hears which is looked at,
    `brought` takes a file of rows. */
class Form {
  constructor(fields, changed, { urls, chosen, brought }) {
    this.fields = fields;
    const images = fields.filter((field) => field.kind === "image");
    const needed = fields.filter((field) => field.kind !== "image" && !field.nullable && !("default" in field));
    const added = () => { if (!needed.length) this.node.requestSubmit(); };
    const options = { urls, several: images.length === 1, chosen, added };
    const stale = () => { this.pictures?.outdated(); changed(); };
    this.inputs = fields.map((field) => (field.kind === "image" ? new PictureInput(field, changed, options) : new Input(field, stale)));
    this.byName = new Map(this.inputs.map((input) => [input.name, input]));
    /** The input of pictures, where there is one: each picture in it is a record. */
    this.pictures = images.length === 1 ? this.byName.get(images[0].name) : null;
    this.changed = changed;
    this.fillExample();
    this.list = el("div", { class: fields.length > MANY ? "fields many" : "fields" });
    this.groups = [];
    this.node = el("form", { class: "card form", novalidate: true, autocomplete: "off", "aria-label": "Input", keydown: submitByKey },
      el("div", { class: "card-head" }, el("h2", {}, "Input"), ...this.tools()),
      fields.length > MANY ? this.filter() : null,
      this.list,
      el("div", { class: "row" }, el("button", { class: "main", type: "submit" }, "Predict"), images.length ? null : this.files(brought)));
    this.draw();
  }

  /** Where files of rows are chosen, or dropped: anywhere on the page. */
  files(brought) {
    const control = el("input", { id: newId(), type: "file", class: "picker", accept: ".csv,.tsv,text/csv", change: () => {
      const [file] = control.files;
      control.value = ""; // so that the same may be chosen again
      if (file) brought(file);
    } });
    const over = (event) => {
      if (!this.node.isConnected || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.node.classList.toggle("over", event.type === "dragover");
      if (event.type === "drop" && event.dataTransfer.files.length) brought(event.dataTransfer.files[0]);
    };
    for (const name of ["dragover", "drop"]) document.addEventListener(name, over);
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) this.node.classList.remove("over"); });
    return el("span", { class: "files" }, control, el("label", { class: "quiet", for: control.id }, "Choose a CSV file"));
  }

  fillExample() {
    for (const input of this.inputs) input.fill(input.field.example);
    if (this.pictures) this.pictures.isExample = true;
  }

  /** The values: [[name, JSON text or File], ...]; those of `picture` where several may be there. */
  values(picture) {
    const value = (input) => {
      if (!(input instanceof PictureInput)) return input.json();
      const one = input === this.pictures && picture ? picture : input.current;
      return one?.file ?? (one?.url ? JSON.stringify({ url: one.url }) : undefined);
    };
    return this.inputs.map((input) => [input.name, value(input)]).filter(([, given]) => given !== undefined);
  }

  /** What is in the form, to be put there again by `restore`; of pictures that of `picture`. */
  state(picture) {
    return this.inputs.map((input) => (picture && input === this.pictures ? picture : input.state));
  }

  restore(state) {
    this.inputs.forEach((input, index) => input.restore(state[index]));
    this.changed();
  }

  /** The values in one line, for people. */
  words(picture) {
    const plain = (value) => (value instanceof File ? value.name : value.startsWith('"') ? JSON.parse(value) : value);
    const given = this.values(picture);
    return given.map(([name, value]) => `${given.length > 1 ? `${name} ` : ""}${plain(value)}`).join(", ").slice(0, 300);
  }

  /** The request: its headers and body, and both as code shows them. A form where a file is among the values, else JSON. */
  call(picture = null) {
    const values = this.values(picture);
    if (!values.some(([, value]) => value instanceof File)) {
      const body = this.body(values);
      return { headers: { "Content-Type": "application/json" }, body, shown: body, record: body };
    }
    const cells = values.filter(([, value]) => value !== "null").map(([name, value]) => [name, typeof value === "string" && value.startsWith('"') ? JSON.parse(value) : value]);
    const body = new FormData();
    for (const [name, value] of cells) body.append(name, value);
    return { headers: {}, body, shown: cells, record: values };
  }

  /** The record as JSON text: short ones in one line. */
  body(values) {
    const parts = values.map(([name, json]) => `${JSON.stringify(name)}: ${json}`);
    const inline = `{${parts.join(", ")}}`;
    return inline.length <= 88 ? inline : `{\n  ${parts.join(",\n  ")}\n}`;
  }

  tools() {
    const reset = el("button", { type: "button", class: "quiet", click: () => { this.fillExample(); this.changed(); } }, "Fill example");
    const paste = el("button", { type: "button", class: "quiet", click: () => this.paste() }, "Paste JSON");
    return [paste, reset];
  }

  draw() {
    if (this.inputs.length <= MANY + GROUP) {
      this.list.replaceChildren(...this.inputs.map((input) => input.node));
      return;
    }
    if (!this.groups.length) {
      for (let at = 0; at < this.inputs.length; at += GROUP) this.groups.push(this.group(this.inputs.slice(at, at + GROUP), at === 0));
    }
    for (const group of this.groups) if (group.open) group.fill();
    this.list.replaceChildren(...this.groups);
  }

  group(inputs, open) {
    const inside = el("div", { class: "fields" });
    const title = `${inputs[0].name} – ${inputs.at(-1).name}`;
    const group = el("details", { class: "group", open }, el("summary", {}, title, el("span", { class: "note" }, ` ${inputs.length} fields`)), inside);
    group.fill = () => inside.replaceChildren(...inputs.map((input) => input.node));
    group.addEventListener("toggle", () => { if (group.open && !inside.contains(inputs[0].node)) group.fill(); });
    return group;
  }

  filter() {
    const count = el("span", { class: "note", role: "status" }, `${this.inputs.length} fields`);
    this.find = el("input", { id: newId(), type: "search", autocomplete: "off", placeholder: "Find a field", "aria-label": "Find a field", input: () => this.applyFilter(count) });
    return el("div", { class: "filter" }, this.find, count);
  }

  applyFilter(count) {
    const words = this.find.value.trim().toLowerCase();
    if (!words) {
      count.textContent = `${this.inputs.length} fields`;
      return this.draw();
    }
    const found = this.inputs.map((input) => [input.name.toLowerCase().indexOf(words), input]).filter(([at]) => at >= 0)
      .sort(([at, one], [other, two]) => at - other || one.name.length - two.name.length).map(([, input]) => input);
    const shown = found.slice(0, GROUP);
    count.textContent = found.length > shown.length ? `${shown.length} of ${found.length} found` : `${found.length} found`;
    return this.list.replaceChildren(...shown.map((input) => input.node));
  }

  /** Bring an input into view, wherever it is, and the keyboard to it. */
  reveal(input) {
    if (!input.node.isConnected) {
      if (this.find?.value) {
        this.find.value = "";
        this.find.dispatchEvent(new Event("input"));
      }
      const group = this.groups[Math.floor(this.inputs.indexOf(input) / GROUP)];
      if (group) {
        group.open = true;
        group.fill();
      }
    }
    input.focus();
  }

  paste() {
    const area = el("textarea", { id: newId(), rows: "10", class: "code-text", spellcheck: "false", "aria-describedby": newId() });
    const note = el("p", { class: "note", id: area.getAttribute("aria-describedby"), role: "status" }, "One record, or a list of them, of which the first is taken.");
    const fill = () => {
      try {
        this.fillFrom(record(area.value));
        dialog.close();
      } catch (error) {
        note.textContent = error.message;
        note.classList.add("error");
        area.setAttribute("aria-invalid", "true");
        area.focus();
      }
    };
    const dialog = el("dialog", { "aria-label": "Paste JSON", class: "broad", close: () => dialog.remove() },
      el("form", { method: "dialog", submit: (event) => { event.preventDefault(); fill(); } },
        el("h2", {}, "Fill the form from JSON"), el("label", { for: area.id }, "A record"), area, note,
        el("div", { class: "row" }, el("button", { class: "main" }, "Fill the form"),
          el("button", { class: "quiet", type: "button", click: () => dialog.close() }, "Cancel"))));
    document.body.append(dialog);
    dialog.showModal();
    area.focus();
  }

  /** Fill from a Map of name to value. Names left out are emptied; throws, with nothing changed, for a name the model does not have. */
  fillFrom(values) {
    const unknown = [...values.keys()].filter((name) => !this.byName.has(name));
    if (unknown.length) throw new Error(`There is no field ${unknown.slice(0, 3).map((name) => JSON.stringify(name)).join(", ")}.`);
    for (const input of this.inputs) input.fill(values.get(input.name));
    this.changed();
  }

  /** Show what is wrong beside the fields: [[input, words], ...]. The keyboard goes to the first. */
  fail(wrong) {
    const first = new Map();
    for (const [input, words] of wrong) if (!first.has(input)) first.set(input, words);
    for (const input of this.inputs) if (input.error || first.has(input)) input.fail(first.get(input) ?? "");
    if (first.size) this.reveal([...first.keys()].sort((one, other) => this.inputs.indexOf(one) - this.inputs.indexOf(other))[0]);
  }
}

/** Enter predicts from a list too, and Ctrl+Enter from a box of several lines; from the filter it goes to the first field found. */
function submitByKey(event) {
  if (event.key !== "Enter") return;
  const { tagName, type } = event.target;
  if (type === "search") {
    event.preventDefault();
    event.currentTarget.querySelector(".field input, .field select, .field textarea")?.focus();
  } else if (tagName === "SELECT" || (tagName === "TEXTAREA" && (event.ctrlKey || event.metaKey))) {
    event.preventDefault();
    event.currentTarget.requestSubmit();
  }
}

/** The answer, its place kept from the start, or what was wrong. */
class Answer {
  constructor(outputs, form, history) {
    this.outputs = outputs;
    this.form = form;
    this.history = history;
    this.running = null;
    this.answered = false;
    this.body = el("div", { class: "answer-body" });
    this.status = el("p", { class: "note" }, form.pictures ? "Bring a picture, or press Predict for this one." : "Press Predict, or Enter in a field.");
    this.said = el("p", { role: "status", class: "unseen" });
    this.raw = el("code");
    this.details = el("details", { class: "raw vacant" }, el("summary", {}, "Exact answer"), el("pre", { tabindex: "0", "aria-label": "Exact answer" }, this.raw));
    this.inside = el("div", { class: "answer-inside" },
      el("div", { class: "card-head" }, el("h2", { id: "answer-title" }, "Answer")), this.body, this.status, this.details, this.said);
    this.node = el("section", { class: "card answer", "aria-labelledby": "answer-title" }, this.inside);
    this.body.append(...drawAnswer(outputs, null));
  }

  /** Send the form, show what comes back. */
  async ask(url) {
    const blocked = this.form.inputs.map((input) => [input, input.problem()]).filter(([, words]) => words);
    if (blocked.length) return this.fail({ title: "Not sent.", detail: "" }, blocked, []);
    return this.during(async (signal) => {
      const { pictures } = this.form;
      const waiting = pictures?.waiting() ?? [];
      if (waiting.length < 2) return this.askOne(url, waiting[0] ?? pictures?.current ?? null, signal);
      const next = waiting.values();
      const lane = async () => { for (const picture of next) if (!(await this.askOne(url, picture, signal))) return; };
      await Promise.all(Array.from({ length: Math.min(LANES, waiting.length) }, lane));
      if (!signal.aborted) this.said.textContent = `${pictures.pictures.length} pictures are answered.`;
      return undefined;
    });
  }

  /** Do what asks the service. A newer question takes the place of one that still runs. */
  async during(asking) {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const slow = setTimeout(() => { this.status.textContent = "Waiting for the answer…"; }, 400);
    try {
      return await asking(running.signal);
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      if (!(error instanceof TypeError)) throw error;
      return this.fail(noConnection(), [], []);
    } finally {
      clearTimeout(slow);
    }
  }

  /** Ask for every row of a file, and give it back with the answers beside them. */
  async askFile(url, given) {
    await this.during(async (signal) => {
      const names = this.form.fields.map(({ name }) => name);
      const started = performance.now();
      try {
        const file = readCsv(new Uint8Array(await given.arrayBuffer()), names);
        const all = number(file.rows.length);
        const told = (count) => { this.status.textContent = `${number(count)} of ${all} rows are answered…`; };
        const found = await askCsv(file, names, url, { signal, told });
        if (found === null) return this.keyless();
        const time = milliseconds(performance.now() - started);
        const shown = { name: given.name, count: all, found: shortened(found), link: URL.createObjectURL(asBlob(found, file)), time };
        this.showFile(shown);
        this.history.add({ words: given.name, answer: `${all} rows`, time, again: () => this.showFile(shown) });
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.fail({ title: error.message, detail: error.hint }, [], error.errors);
      }
      return undefined;
    });
  }

  /** A file with its answers: to be downloaded, and its first rows to look at, the answers first. */
  showFile({ name, count, found, link, time }) {
    const file = `${name.replace(/\.[^.]*$/, "")}-answers.csv`;
    const order = [...found.header.keys()].toSorted((one, other) => (one < found.kept) - (other < found.kept)).slice(0, PREVIEW.columns);
    const preview = drawRows(order.map((at) => found.header[at]), found.rows.map((row) => order.map((at) => row[at])), `The first rows of ${file}`);
    const left = found.left.length ? el("p", { class: "note" }, `Not asked about, as the model does not take it: ${found.left.join(", ")}.`) : null;
    this.form.fail([]);
    this.body.style.minHeight = "";
    this.body.replaceChildren(
      el("div", { class: "output" }, el("p", { class: "output-name" }, name), el("p", { class: "value" }, `${count} row${count === "1" ? "" : "s"}`)),
      el("a", { class: "main download", href: link, download: file }, "Download with answers"), el("div", {}, preview, left));
    this.details.classList.add("vacant");
    this.status.textContent = `Answered in ${time}.`;
    this.said.textContent = `${count} rows are answered. ${file} is ready to be downloaded.`;
    this.answered = false;
    this.comeIntoView();
  }

  /** Ask for one record; of a picture the answer is kept beside it, and shown if it is the one that is looked at. False when nothing came. */
  async askOne(url, picture, signal) {
    const { headers, body } = this.form.call(picture);
    const [state, words] = [this.form.state(picture), this.form.words(picture)]; // as asked: it may be edited meanwhile
    const reply = await sendWithKey(url, { method: "POST", headers: { ...headers, Accept: "application/json" }, body, signal });
    if (reply === null) {
      this.keyless();
      return false;
    }
    const answer = reply.ok ? headline(this.outputs, parse(reply.text)) : "not answered";
    if (picture) this.form.pictures?.answered(picture, reply, answer, !reply.ok);
    const again = () => {
      this.form.restore(state);
      this.tell(reply);
    };
    const shown = !picture || picture === this.form.pictures?.current;
    this.history.add({ words, answer, time: milliseconds(reply.ms), failed: !reply.ok, shown, again });
    if (shown) this.tell(reply);
    return true;
  }

  keyless() {
    this.fail({ title: "The service wants an API key.", detail: "Try again to be asked for it." }, [], []);
  }

  /** Show the answer to another picture. */
  look(picture) {
    this.history.look();
    if (picture.reply) this.tell(picture.reply);
    else this.outdated();
  }

  tell(reply) {
    if (reply.ok) this.show(reply);
    else this.refused(trouble(reply));
  }

  show(reply) {
    const answer = parse(reply.text);
    this.form.fail([]);
    this.body.style.minHeight = "";
    this.body.replaceChildren(...drawAnswer(this.outputs, answer));
    this.raw.textContent = pretty(reply.text);
    this.details.classList.remove("vacant");
    this.status.textContent = `Answered in ${milliseconds(reply.ms)}.`;
    this.said.textContent = sayAnswer(this.outputs, answer);
    this.answered = true;
    this.comeIntoView();
  }

  /** A refusal: each error to its field, what has no field into the answer's place. */
  refused(problem) {
    const wrong = [];
    const others = [];
    for (const error of problem.errors) {
      const input = this.form.byName.get(fieldOf(error.pointer));
      if (input) wrong.push([input, advice(input, String(error.detail))]);
      else others.push(String(error.detail));
    }
    const title = wrong.length ? (wrong.length === 1 ? "One value does not fit." : `${wrong.length} values do not fit.`) : problem.title;
    this.fail({ title, detail: problem.errors.length ? "" : problem.detail }, wrong, others);
  }

  fail({ title, detail }, wrong, others) {
    const links = wrong.slice(0, 20).map(([input, words]) => el("li", {},
      el("button", { type: "button", class: "link", click: () => this.form.reveal(input) }, input.name), `: ${words}`));
    const more = wrong.length > links.length ? [el("li", {}, `and ${wrong.length - links.length} more`)] : [];
    const rest = others.map((words) => el("li", {}, sentence(words)));
    this.body.style.minHeight = `${this.body.offsetHeight}px`; // so that what is below stays where it is
    this.body.replaceChildren(el("p", { class: "trouble" }, title), detail ? el("p", {}, detail) : "", links.length + rest.length ? el("ul", { class: "troubles" }, ...links, ...more, ...rest) : "");
    this.status.textContent = "";
    this.details.classList.add("vacant");
    this.answered = false;
    this.said.textContent = `${title} ${detail}`;
    this.form.fail(wrong);
    if (!wrong.length) this.comeIntoView();
  }

  /** The values have changed since: the answer is for the earlier ones. */
  outdated() {
    if (this.answered) this.status.textContent = "This is for the earlier values.";
    this.answered = false;
  }

  /** On a narrow page the answer is below the button: scroll only as far as it takes to see it. */
  comeIntoView() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.inside.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }
}

/** What is kept of a file with its answers. */
const shortened = (found) => ({ ...found, rows: found.rows.slice(0, PREVIEW.rows) });

/** The field that a JSON pointer (RFC 6901) into one record names. */
function fieldOf(pointer) {
  return String(pointer ?? "").split("/")[1]?.replaceAll("~1", "/").replaceAll("~0", "~");
}

function milliseconds(ms) {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

await start();
