// Small builders for the two pages. Text reaches the document as text nodes only, so that no name or answer can become markup.

/** An element. Attributes that are functions become listeners; false, null and undefined ones are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

let count = 0;

/** An id that no other element has; never made from a name. */
export const newId = () => `i${++count}`;

/** A button that copies what `text()` gives. `shown` is the element with that text, selected where the clipboard is out of reach. */
export function copyButton(text, shown = null, what = "") {
  const label = el("span", {}, "Copy");
  const said = el("span", { role: "status", class: "unseen" });
  const name = what ? `Copy ${what}` : "Copy";
  const button = el("button", { type: "button", class: "quiet copy", "aria-label": name, click: copy }, label);
  async function copy() {
    label.textContent = (await toClipboard(text(), shown)) ? "Copied" : "Ctrl+C";
    said.textContent = label.textContent === "Copied" ? "Copied" : "Selected: press Ctrl+C to copy";
    setTimeout(() => { label.textContent = "Copy"; said.textContent = ""; }, 1600);
  }
  return el("span", { class: "copying" }, button, said);
}

async function toClipboard(text, shown) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      if (error.name !== "NotAllowedError") throw error;
    }
  }
  if (shown) getSelection().selectAllChildren(shown); // there is no clipboard on plain http; a selection can still be copied by hand
  return false;
}

/** A card with a title and tabs over one block of code: `entries()` gives [[label, code], ...] anew at each call of `update`. */
export function codeTabs(title, entries, level = "h2") {
  const code = el("code");
  const panel = el("pre", { role: "tabpanel", id: newId(), tabindex: "0" }, code);
  const list = el("div", { role: "tablist", "aria-label": title, class: "tabs", keydown: move });
  let chosen = 0;
  const buttons = entries().map(([name], index) =>
    el("button", { type: "button", role: "tab", id: newId(), "aria-controls": panel.id, click: () => choose(index) }, name));
  list.append(...buttons);

  function choose(index) {
    chosen = index;
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[index].id);
    update();
  }
  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    choose((chosen + step + buttons.length) % buttons.length);
    buttons[chosen].focus();
  }
  function update() {
    const now = entries()[chosen][1];
    if (code.textContent !== now) code.textContent = now;
  }
  choose(0);
  const heading = el(level, { id: newId() }, title);
  const head = el("div", { class: "card-head" }, heading, copyButton(() => code.textContent, code, "the code"));
  return { node: el("section", { class: "card code", "aria-labelledby": heading.id }, head, list, panel), update };
}
