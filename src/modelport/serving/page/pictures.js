// Pictures as an input: dropped, pasted, chosen, photographed, or named by a URL; shown before they are sent, and with their labels after.

import { capital } from "./api.js";
import { el, newId } from "./dom.js";

const TYPES = "image/jpeg,image/png,image/webp";
const SUFFIX = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" };
const sizes = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

/** One picture: a file to send, or a URL for the service to fetch. `reply` is what came back, `caption` that in a few words. */
class Picture {
  constructor({ file = null, url = "" }) {
    this.file = file;
    this.url = url;
    this.source = file ? URL.createObjectURL(file) : "";
    this.reply = null;
    this.caption = "";
    this.failed = false;
    this.tile = null;
  }

  get name() {
    return this.file?.name ?? this.url;
  }

  drop() {
    if (this.source) URL.revokeObjectURL(this.source);
  }

  /** The same picture with its answer, after it was dropped. */
  again() {
    return Object.assign(new Picture(this), { reply: this.reply, caption: this.caption, failed: this.failed });
  }
}

/** The state of an input that takes pictures; in the form it stands for an Input of fields.js.
    `options`: `several` pictures may be there at once, each of which is asked for; `urls`, whether the service fetches them;
    `added()` is called when somebody has brought one, `chosen()` when another is looked at. */
export class PictureInput {
  constructor(field, changed, options) {
    this.field = field;
    this.name = field.name;
    this.optional = field.nullable === true;
    this.changed = changed;
    this.options = options;
    this.pictures = [];
    this.current = null;
    this.isExample = false;
    this.error = "";
    this.parts = null;
    this.text = "";
  }

  /** Take a JSON value: base64, or {"url": ...}. Undefined and null empty it. */
  fill(value) {
    const text = typeof value === "string" ? value : value?.b64;
    if (text) this.put([new Picture({ file: fileOf(text) })]);
    else if (value?.url) this.put([new Picture({ url: value.url })]);
    else this.put([]);
    this.isExample = false;
    this.fail("");
  }

  put(pictures) {
    for (const picture of this.pictures) picture.drop();
    this.pictures = pictures;
    this.current = pictures[0] ?? null;
    this.show();
  }

  /** The picture that is looked at, to be looked at again by `restore`. */
  get state() {
    return this.current;
  }

  restore(picture) {
    this.fail("");
    if (!this.pictures.includes(picture)) return this.put(picture ? [picture.again()] : []);
    this.current = picture;
    return this.show();
  }

  /** Pictures that somebody brought: beside those that are there where several may be, unless that is the example. */
  add(pictures) {
    if (!pictures.length) return;
    const kept = this.options.several && !this.isExample ? this.pictures : [];
    const mine = this.options.several ? pictures : pictures.slice(0, 1);
    for (const picture of this.pictures) if (!kept.includes(picture)) picture.drop();
    this.pictures = [...kept, ...mine];
    this.current = mine[0];
    this.isExample = false;
    this.fail("");
    this.show();
    this.changed();
    this.options.added();
  }

  /** Those that were not answered yet; that which is looked at first. */
  waiting() {
    const waiting = this.pictures.filter((picture) => picture.reply === null);
    return waiting.includes(this.current) ? [this.current, ...waiting.filter((picture) => picture !== this.current)] : waiting;
  }

  /** What came back for a picture, with its words for the gallery. */
  answered(picture, reply, caption, failed) {
    Object.assign(picture, { reply, caption, failed });
    this.show();
  }

  /** The other values have changed: no answer holds any more. */
  outdated() {
    for (const picture of this.pictures) Object.assign(picture, { reply: null, caption: "", failed: false });
    this.show();
  }

  problem() {
    return this.current || this.optional ? "" : "is missing: choose a picture";
  }

  fail(words) {
    this.error = words;
    if (!this.parts) return;
    this.parts.note.textContent = words ? capital(words) : this.hint();
    this.parts.node.classList.toggle("wrong", words !== "");
    if (words) this.parts.file.setAttribute("aria-invalid", "true");
    else this.parts.file.removeAttribute("aria-invalid");
  }

  focus() {
    this.parts.file.focus();
  }

  hint() {
    const { description, preprocessing: how } = this.field;
    const seen = how && `The model sees ${how.pad || how.crop === "none" ? "it" : "its middle"} as ${how.width} × ${how.height} pixels`;
    return [description, seen].filter(Boolean).join(". ");
  }

  get node() {
    if (!this.parts) {
      this.build();
      this.fail(this.error);
      this.show();
    }
    return this.parts.node;
  }

  build() {
    const { several, urls } = this.options;
    const note = el("p", { class: "note", id: newId() });
    const title = el("span", { class: "label", id: newId() }, this.name, this.optional ? el("span", { class: "optional" }, " optional") : null);
    const file = this.picker({ multiple: several, "aria-describedby": note.id, "aria-required": this.optional ? null : "true" });
    const camera = this.picker({ capture: "environment" });
    const view = el("div", { class: "view" });
    const zone = el("div", { class: "zone", role: "group", "aria-labelledby": title.id },
      view,
      el("p", { class: "zone-words by-mouse" }, several ? "Drop pictures here, paste one, or" : "Drop a picture here, paste it, or"),
      el("div", { class: "zone-ways" },
        file, el("label", { class: "way", for: file.id }, several ? "Choose pictures" : "Choose a picture"),
        camera, el("label", { class: "way camera", for: camera.id }, "Take a photo")),
      urls ? this.address() : null);
    const gallery = el("ul", { class: "gallery", "aria-label": "Pictures" });
    const clear = () => {
      this.put([]);
      this.changed();
      this.focus();
    };
    this.clearing = el("li", {}, el("button", { type: "button", class: "quiet", click: clear }, "Clear"));
    const node = el("div", { class: "field wide picture", dragover: (event) => this.hover(event), dragleave: (event) => this.leave(event), drop: (event) => this.dropped(event) },
      title, zone, gallery, note);
    this.parts = { node, note, file, view, gallery, zone };
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || !node.isConnected) return;
      event.preventDefault();
      this.take(files);
    });
    for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => { if (node.isConnected) event.preventDefault(); });
  }

  picker(attributes) {
    const control = el("input", { id: newId(), type: "file", class: "picker", accept: TYPES, ...attributes });
    control.addEventListener("change", () => {
      this.take([...control.files]);
      control.value = ""; // so that the same may be chosen again
    });
    return control;
  }

  address() {
    const use = () => {
      const url = field.value.trim();
      if (!url) return;
      field.value = "";
      this.add([new Picture({ url })]);
    };
    const field = el("input", { id: newId(), type: "url", autocomplete: "off", spellcheck: "false", placeholder: "https://…", "aria-label": "Address of a picture" });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      use();
    });
    return el("div", { class: "address" }, field, el("button", { type: "button", class: "quiet", click: use }, "Use the address"));
  }

  take(files) {
    this.add(files.map((file) => new Picture({ file })));
  }

  hover(event) {
    event.preventDefault();
    this.parts.zone.classList.add("over");
  }

  leave(event) {
    if (!this.parts.node.contains(event.relatedTarget)) this.parts.zone.classList.remove("over");
  }

  dropped(event) {
    event.preventDefault();
    this.parts.zone.classList.remove("over");
    this.take([...event.dataTransfer.files]);
  }

  choose(picture) {
    this.current = picture;
    this.show();
    this.options.chosen(picture);
  }

  show() {
    if (!this.parts) return;
    const { view, gallery, zone } = this.parts;
    zone.classList.toggle("filled", this.current !== null);
    view.replaceChildren(...(this.current ? [shown(this.current, this.current.name), el("p", { class: "zone-words" }, about(this.current))] : []));
    gallery.hidden = this.pictures.length < 2;
    const tiles = gallery.hidden ? [] : [...this.pictures.map((picture) => this.tile(picture)), this.clearing];
    if (tiles.length !== gallery.children.length || tiles.some((tile, index) => tile !== gallery.children[index])) gallery.replaceChildren(...tiles);
  }

  /** The picture's place in the gallery: the same node for as long as it is there, so that the keyboard stays on it. */
  tile(picture) {
    if (!picture.tile) {
      const caption = el("span", { class: "caption" });
      const button = el("button", { type: "button", class: "tile", click: () => this.choose(picture) }, shown(picture, picture.name), caption);
      picture.tile = { node: el("li", {}, button), button, caption };
    }
    const { node, button, caption } = picture.tile;
    button.classList.toggle("failed", picture.failed);
    button.setAttribute("aria-pressed", String(picture === this.current));
    caption.textContent = picture.caption || (picture.reply === null ? "…" : "");
    return node;
  }

}

/** A picture to look at; one that the service fetches cannot be shown, for the page loads nothing from elsewhere. */
function shown(picture, name) {
  return picture.source ? el("img", { src: picture.source, alt: name }) : el("span", { class: "elsewhere" }, hostOf(picture.url));
}

function about(picture) {
  if (!picture.file) return picture.url;
  const { size, name } = picture.file;
  return `${name}, ${size < 1e6 ? `${sizes.format(Math.max(1, size / 1000))} kB` : `${sizes.format(size / 1e6)} MB`}`;
}

function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return url.slice(0, 40);
  }
}

/** The picture in base64, plain or as a data URL, as a file. */
function fileOf(text) {
  const bytes = Uint8Array.from(atob(text.replace(/^data:[^,]*,/, "")), (letter) => letter.charCodeAt(0));
  const type = bytes[0] === 0x89 ? "image/png" : bytes[0] === 0x52 ? "image/webp" : "image/jpeg";
  return new File([bytes], `example.${SUFFIX[type]}`, { type });
}
