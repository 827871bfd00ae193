// The places, best first, and the letters that stand on them. Letters are dragged here, and a click on one goes to its
// response.

import { fill, h, letter } from "./dom.js";
import { standingOf } from "./cards.js";

/** The places of a task. `go` is called with the response whose letter was pressed. */
export class Board {
  constructor(place, go) {
    this.place = place;
    this.go = go;
  }

  build(count) {
    this.chips = Array.from({ length: count }, (_, index) => this.chip(index));
    this.slots = Array.from({ length: count }, (_, i) => slot(i + 1, String(i + 1)));
    this.tray = slot("", "Not ranked");
    this.tray.classList.add("tray");
    const best = h("span", { class: "end" }, "Best");
    const worst = h("span", { class: "end" }, "Worst");
    fill(this.place, this.tray, h("div", { class: "scale" }, best, h("div", { class: "slots" }, this.slots), worst));
    this.place.classList.toggle("wide-board", count > 4);
    this.place.classList.toggle("many", count > 8);
  }

  chip(index) {
    return h("button", { type: "button", class: "chip", "data-place": index, onclick: () => this.go(index) }, letter(index));
  }

  update(state) {
    const slots = [this.tray, ...this.slots];
    this.tray.querySelector(".name").textContent = state.rest ? "Cannot tell" : "Not ranked";
    this.chips.forEach((chip, index) => {
      const home = slots[state.ranks[index] ?? 0].querySelector(".chips");
      if (chip.parentElement !== home) home.append(chip);
      chip.classList.toggle("current", state.focus === index);
      chip.setAttribute("aria-label", `Response ${letter(index)}, ${standingOf(state, index).toLowerCase()}: go to it`);
    });
    for (const element of slots) element.classList.toggle("used", element.querySelector(".chip") !== null);
  }
}

function slot(rank, name) {
  return h("div", { class: "slot", "data-rank": rank }, h("span", { class: "name" }, name), h("div", { class: "chips" }));
}
