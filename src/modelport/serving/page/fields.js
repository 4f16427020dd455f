// One input of the model: its widget, what is in it, and that as JSON. The form is made of these.

import { capital, parse, sentence, toJson } from "./api.js";
import { el, newId } from "./dom.js";

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/; // as JSON writes it, to be sent with every digit as typed
const NEARLY = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const FEW = { choices: 4, characters: 24 }; // up to these, choices stand side by side rather than in a list
const bounds = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
const SENSIBLE = 1e15; // bounds beyond are those of the machine, not of the data: not worth a word

const [ON, OFF] = ["0", "1"]; // the indices of true and false among a boolean's choices

const isSwitch = (field) => field.kind === "boolean" && !field.nullable;

/** The state of one input. `field` is as in the signature; `changed()` is called when the person changes it. Built when first seen. */
export class Input {
  constructor(field, changed) {
    this.field = field;
    this.optional = field.nullable || field.default !== undefined;
    this.name = field.name;
    this.kind = KINDS[field.shape?.length ? "tensor" : field.kind] ?? KINDS.json;
    this.options = options(field);
    this.text = "";
    this.error = "";
    this.changed = changed;
    this.parts = null;
  }

  /** Take a JSON value; undefined and null empty it. */
  fill(value) {
    this.error = "";
    this.text = value === undefined || value === null ? (isSwitch(this.field) ? OFF : "") : this.kind.toText(value, this);
    if (!this.error) this.fail("");
    this.show();
  }

  /** What is in it, to be put there again by `restore`. */
  get state() {
    return this.text;
  }

  restore(state) {
    this.text = state;
    this.fail("");
    this.show();
  }

  /** What is in it as JSON text; undefined when there is nothing to send, so that the service says that it is missing. */
  json() {
    if (this.text === "" && this.kind.textual && !this.optional) return '""';
    if (this.text.trim() === "" && (!this.kind.textual || this.text === "")) return this.field.nullable ? "null" : undefined;
    return this.kind.toJson(this.text, this);
  }

  /** What keeps it from being sent at all, in words; "" when nothing does. */
  problem() {
    if (this.kind !== KINDS.json && this.kind !== KINDS.tensor) return "";
    try {
      JSON.parse(this.text.trim() || "null");
      return "";
    } catch (error) {
      return `is not JSON: ${error.message}`;
    }
  }

  /** Show `words` beside it as what is wrong; "" takes them away. */
  fail(words) {
    this.error = words;
    if (!this.parts) return;
    const { note, node, controls } = this.parts;
    note.textContent = words ? capital(words) : hint(this.field, this.kind);
    node.classList.toggle("wrong", words !== "");
    for (const control of controls) {
      if (words) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }

  focus() {
    const { controls } = this.parts;
    (controls.find((control) => control.checked) ?? controls[0]).focus();
  }

  get node() {
    if (!this.parts) {
      this.parts = build(this);
      this.fail(this.error);
      this.show();
    }
    return this.parts.node;
  }

  show() {
    if (this.parts) this.parts.show(this.text);
  }

  take(text) {
    this.text = text;
    if (this.error) this.fail("");
    this.changed();
  }
}

const KINDS = {
  number: { widget: line("decimal"), toText: plain, toJson: numberJson, words: "" },
  integer: { widget: line("numeric"), toText: plain, toJson: numberJson, words: "Whole number" },
  boolean: { widget: choose, toText: optionText, toJson: optionJson, words: "" },
  category: { widget: choose, toText: optionText, toJson: optionJson, words: "" },
  string: { widget: line("text"), toText: plain, toJson: stringJson, words: "", textual: true },
  text: { widget: area, toText: plain, toJson: stringJson, words: "", textual: true, wide: true },
  datetime: { widget: datetime, toText: datetimeText, toJson: stringJson, words: "UTC" },
  tensor: { widget: area, toText: jsonText, toJson: (text) => text.trim(), words: "", wide: true, code: true },
  json: { widget: area, toText: jsonText, toJson: (text) => text.trim(), words: "JSON", wide: true, code: true },
};

function build(input) {
  const { field, kind } = input;
  const note = el("p", { class: "note", id: newId() });
  const optional = input.optional ? el("span", { class: "optional" }, " optional") : null;
  const { control, controls, show, group } = kind.widget(input, note.id);
  const label = group
    ? el("span", { class: "label", id: group }, field.name, optional)
    : el("label", { class: "label", for: controls[0].id }, field.name, optional);
  const node = el("div", { class: kind.wide ? "field wide" : "field" }, label, control, note);
  return { node, note, controls, show };
}

function line(mode) {
  return (input, note) => {
    const { field } = input;
    const list = mode === "text" && field.choices ? el("datalist", { id: newId() }, ...field.choices.map((choice) => el("option", { value: choice }))) : null;
    const control = el("input", {
      id: newId(), type: "text", inputmode: mode, autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      list: list?.id, "aria-describedby": note, "aria-required": input.optional ? null : "true",
      input: () => input.take(control.value),
    });
    return { control: el("div", {}, control, list), controls: [control], show: (text) => { control.value = text; } };
  };
}

function area(input, note) {
  const { field, kind } = input;
  const control = el("textarea", {
    id: newId(), rows: kind.code ? "3" : "4", spellcheck: kind.code ? "false" : null, class: kind.code ? "code-text" : null,
    "aria-describedby": note, "aria-required": input.optional ? null : "true", input: () => input.take(control.value),
  });
  return { control, controls: [control], show: (text) => { control.value = text; } };
}

function datetime(input, note) {
  const control = el("input", {
    id: newId(), type: "datetime-local", step: "1", "aria-describedby": note, "aria-required": input.optional ? null : "true",
    input: () => input.take(control.value),
  });
  return { control, controls: [control], show: (text) => { control.value = text; } };
}

/** A switch, a row of choices or a list, by how many there are; the text is the index of the choice. */
function choose(input, note) {
  const { field, options: all } = input;
  if (isSwitch(field)) return toggle(input, note);
  const characters = all.reduce((sum, option) => sum + option.label.length, 0);
  return all.length <= FEW.choices && characters <= FEW.characters ? segments(input, note) : select(input, note);
}

function toggle(input, note) {
  const word = el("span", { class: "switch-word", "aria-hidden": "true" });
  const control = el("input", {
    id: newId(), type: "checkbox", role: "switch", "aria-describedby": note,
    input: () => { input.take(control.checked ? ON : OFF); word.textContent = control.checked ? "yes" : "no"; },
  });
  const show = (text) => { control.checked = text === ON; word.textContent = control.checked ? "yes" : "no"; };
  return { control: el("div", { class: "switch" }, control, word), controls: [control], show };
}

function segments(input, note) {
  const name = newId();
  const group = newId();
  const controls = input.options.map((option) => el("input", { type: "radio", id: newId(), name, value: option.text, input: () => input.take(option.text) }));
  const labels = input.options.map((option, index) => el("span", {}, controls[index], el("label", { for: controls[index].id }, option.label)));
  const control = el("div", { class: "segments", role: "radiogroup", "aria-labelledby": group, "aria-describedby": note }, ...labels);
  return { control, controls, group, show: (text) => controls.forEach((radio) => { radio.checked = radio.value === text; }) };
}

function select(input, note) {
  const given = input.options.map((option) => el("option", { value: option.text }, option.label));
  const none = input.field.nullable ? [] : [el("option", { value: "", hidden: true }, "Choose")];
  const control = el("select", {
    id: newId(), "aria-describedby": note, "aria-required": input.optional ? null : "true", input: () => input.take(control.value),
  }, ...none, ...given);
  return { control, controls: [control], show: (text) => { control.value = text; } };
}

/** The choices of a category or boolean: {text, label, value}; where it may be left out, that comes last. */
function options(field) {
  const choices = field.kind === "boolean" ? [true, false] : field.kind === "category" ? field.choices : [];
  const given = choices.map((value, index) => ({ text: String(index), label: field.kind === "boolean" ? (value ? "yes" : "no") : String(value) || "(empty)", value }));
  return field.nullable ? [...given, { text: "", label: "not given", value: null }] : given;
}

function optionText(value, input) {
  const found = input.options.find((option) => option.value === value);
  if (found) return found.text;
  input.fail(`${toJson(value)} is not one of the choices`);
  return "";
}

function optionJson(text, input) {
  return toJson(input.options.find((option) => option.text === text).value);
}

function stringJson(text) {
  return JSON.stringify(text);
}

function plain(value) {
  return typeof value === "object" ? toJson(value) : String(value);
}

/** A number as typed, where it is one; otherwise as a string, so that the service says what is wrong with it. */
function numberJson(text) {
  const typed = text.trim().replace("−", "-");
  if (NUMBER.test(typed)) return typed;
  return NEARLY.test(typed) ? String(Number(typed)) : JSON.stringify(text);
}

/** The value of a datetime-local input, which knows no time zone: in UTC, as the model has it. */
function datetimeText(value) {
  const text = String(value).trim().replace(" ", "T");
  const moment = /(Z|[+-]\d\d:?\d\d)$/i.test(text) && text.includes("T") ? new Date(text) : null;
  const local = moment && !Number.isNaN(moment.getTime()) ? moment.toISOString().slice(0, 19) : text.slice(0, 19);
  return local.includes("T") ? local : `${local}T00:00`;
}

function jsonText(value) {
  const short = toJson(value);
  return short.length > 60 && !Array.isArray(value) ? toJson(value, 2) : short;
}

/** One line about what goes in: the description, what limits it, its unit. */
function hint(field, kind) {
  const parts = [field.description, kind.words, range(field)];
  if (field.shape?.length) parts.push(`Numbers of shape ${field.shape.map((size) => (size < 0 ? "any" : size)).join(" × ")}, as JSON`);
  if (field.kind === "string" && field.choices?.length) parts.push(`For example ${field.choices.slice(0, 3).join(", ")}`);
  return parts.filter(Boolean).map((part) => part.replace(/\.$/, "")).join(". ");
}

function range({ minimum, maximum }) {
  if (Math.abs(Number(minimum)) === Number.MIN_VALUE) return `More than 0${maximum < SENSIBLE ? `, to ${bounds.format(maximum)}` : ""}`;
  const [low, high] = [minimum, maximum].map((limit) => (limit !== undefined && Math.abs(Number(limit)) < SENSIBLE ? bounds.format(limit) : ""));
  if (low && high) return `${low} to ${high}`;
  if (low) return `${low} or more`;
  return high && `${high} or less`;
}

/** What the service says of a value, as a sentence; with the remedy where a decimal comma is the cause. */
export function advice(input, detail) {
  const comma = /^\s*[+-]?\d+,\d+\s*$/.test(input.text) && /number|integer/.test(input.field.kind);
  return comma ? `${sentence(detail)} Write ${input.text.trim().replace(",", ".")}, with a point.` : detail;
}

/** The record in `text`: an object, or the first of a list of them. Throws with words for the person. */
export function record(text) {
  let value;
  try {
    value = parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`, { cause: error });
  }
  const first = Array.isArray(value) ? value[0] : value;
  if (first === null || typeof first !== "object" || Array.isArray(first)) throw new Error("A record is an object: {\"name\": value, ...}");
  return new Map(Object.entries(first));
}
