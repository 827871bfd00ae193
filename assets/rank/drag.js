// Dragging a letter by its handle to a place: onto one is a tie with those that stand there, between two is between.
//
// Only a handle begins a drag, so scrolling, by finger or wheel, never moves anything. Escape, or letting go outside of
// the places, leaves all as it was.

import { h } from "./dom.js";

const THRESHOLD = 6; // pixels before a press is a drag
const EDGE = 0.25; // part of a used place, at each side, that means "between"

/** Watches the handles inside of `root`; `send` takes actions. */
export function watchDrags(root, slots, send) {
  root.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".handle, .chip");
    if (handle && event.isPrimary && event.button === 0) new Drag(handle, event, slots(), send);
  });
}

class Drag {
  constructor(handle, event, slots, send) {
    Object.assign(this, { handle, slots, send, id: event.pointerId, x: event.clientX, y: event.clientY, ghost: null });
    this.place = Number(handle.dataset.place);
    this.ends = new AbortController();
    const listen = (target, name, call) => target.addEventListener(name, call, { signal: this.ends.signal });
    listen(handle, "pointermove", (e) => this.move(e));
    listen(handle, "pointerup", (e) => this.drop(e));
    listen(handle, "pointercancel", () => this.end());
    listen(handle, "lostpointercapture", () => this.end());
    listen(window, "keydown", (e) => { if (e.key === "Escape") this.end(); });
    handle.setPointerCapture(event.pointerId);
  }

  move({ clientX, clientY }) {
    if (this.ghost === null && Math.hypot(clientX - this.x, clientY - this.y) < THRESHOLD) return;
    this.ghost ??= this.begin();
    this.ghost.style.transform = `translate(${clientX}px, ${clientY}px)`;
    const target = this.target(clientX, clientY);
    for (const slot of this.slots) slot.classList.remove("over", "before", "after");
    target?.slot.classList.add(target.side ?? "over");
  }

  begin() {
    document.body.classList.add("dragging");
    const ghost = h("div", { class: "ghost", "aria-hidden": "true" }, this.handle.textContent);
    document.body.append(ghost);
    return ghost;
  }

  /** The place under the pointer, and the side of it where that is an edge of a used one. */
  target(x, y) {
    for (const slot of this.slots) {
      const { left, right, top, bottom, width } = slot.getBoundingClientRect();
      if (x < left || x > right || y < top || y > bottom) continue;
      const others = [...slot.querySelectorAll(".chip")].some((chip) => Number(chip.dataset.place) !== this.place);
      if (slot.dataset.rank === "" || !others) return { slot };
      if (x < left + width * EDGE) return { slot, side: "before" };
      return x > right - width * EDGE ? { slot, side: "after" } : { slot };
    }
    return null;
  }

  drop({ clientX, clientY }) {
    const dragged = this.ghost !== null;
    const target = dragged ? this.target(clientX, clientY) : null;
    this.end();
    if (dragged) swallowClick(this.handle);
    if (target) this.send(action(this.place, target));
  }

  end() {
    this.ends.abort();
    this.ghost?.remove();
    document.body.classList.remove("dragging");
    for (const slot of this.slots) slot.classList.remove("over", "before", "after");
    if (this.handle.hasPointerCapture(this.id)) this.handle.releasePointerCapture(this.id);
  }
}

function action(place, { slot, side }) {
  const rank = Number(slot.dataset.rank);
  if (slot.dataset.rank === "") return { type: "clear", place };
  if (side) return { type: "insert", place, rank: side === "before" ? rank : rank + 1 };
  return { type: "put", place, rank };
}

/** The click that follows a drag is none. */
function swallowClick(handle) {
  const stop = (event) => { event.stopPropagation(); event.preventDefault(); };
  handle.addEventListener("click", stop, { capture: true, once: true });
  setTimeout(() => handle.removeEventListener("click", stop, { capture: true }), 0);
}
