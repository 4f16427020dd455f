// The calls of this visit, newest first. They are kept by the page alone, until it is left.

import { el } from "./dom.js";

const KEPT = 50;
const times = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** The list, folded: its place does not change with the calls. */
export class History {
  constructor() {
    this.list = el("ol", { class: "calls" });
    this.count = el("span", { class: "note" }, "none yet");
    this.node = el("details", { class: "card history" }, el("summary", {}, el("h2", {}, "Calls of this visit"), " ", this.count), this.list);
    this.made = 0;
  }

  /** Note a call: what was asked and what came, in a few `words` and an `answer`, the `time` it took, and whether it is `shown` now.
      `again()` shows both again. */
  add({ words, answer, time, failed = false, shown = true, again }) {
    const show = () => {
      again();
      this.look(button);
    };
    const button = el("button", { type: "button", class: failed ? "call failed" : "call", click: show },
      el("span", { class: "call-answer" }, answer), el("span", { class: "call-time" }, time),
      el("span", { class: "call-words" }, words), el("span", { class: "call-time" }, times.format(new Date())));
    this.list.prepend(el("li", {}, button));
    if (this.list.children.length > KEPT) this.list.lastChild.remove();
    this.made += 1;
    this.count.textContent = this.made > KEPT ? `${this.made}, of which the last ${KEPT}` : String(this.made);
    if (shown) this.look(button);
  }

  /** Mark the call whose answer is shown, or none. */
  look(button = null) {
    for (const each of this.list.querySelectorAll("[aria-current]")) each.removeAttribute("aria-current");
    button?.setAttribute("aria-current", "true");
  }
}
