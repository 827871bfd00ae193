// The responses of a task, each a card: its letter, its text, the buttons of its rank, ratings and flags.
//
// Cards are built once a task and then only marked: nothing moves when a rank changes.

import { byId, counted, fill, h, letter } from "./dom.js";
import { isShort, markdown } from "./markdown.js";
import { nodes, plain } from "./text.js";

/** Characters from which a text scrolls on its own, unless it is opened in full. */
const LONG = 8000;
const NARROWEST = 290; // pixels of a column

/** The cards of a task. `send` takes actions. */
export class Cards {
  constructor(place, settings, send) {
    this.place = place;
    this.settings = settings;
    this.send = send;
    this.cards = [];
    new ResizeObserver(() => this.arrange()).observe(place);
  }

  build(task, asText) {
    this.task = task;
    this.cards = task.responses.map((content, index) => this.card(content, index));
    fill(this.place, this.cards.map((card) => card.element));
    this.place.classList.toggle("many", this.cards.length > 8);
    this.arrange();
    this.write(asText);
  }

  /** Columns of equal number in all rows, as many as are wide enough to read. */
  arrange() {
    const count = this.cards.length;
    const fitting = Math.max(1, Math.floor(this.place.clientWidth / NARROWEST));
    const columns = Math.ceil(count / Math.ceil(count / Math.min(fitting, count)));
    this.place.style.setProperty("--columns", columns);
    this.place.classList.toggle("stacked", columns === 1);
  }

  /** Writes the texts, as Markdown or as they are. */
  write(asText) {
    this.task.responses.forEach((content, index) => fill(this.cards[index].text, contentNodes(content, asText)));
    requestAnimationFrame(() => this.offerUnfolding());
  }

  /** A long text that fits needs no button to show all of it. */
  offerUnfolding() {
    for (const { text } of this.cards.filter((card) => card.text.matches(".long:not(.open)"))) {
      text.nextElementSibling.hidden = text.scrollHeight <= text.clientHeight + 4;
    }
  }

  card(content, index) {
    const name = `Response ${letter(index)}`;
    const handle = h("span", { class: "handle", "data-place": index, title: "Drag to a place below" }, letter(index));
    const standing = h("span", { class: "standing" });
    const ranks = this.rankButtons(index, name);
    const text = h("div", { class: "text" });
    const extras = [this.ratingRows(index, name), this.flagRow(index, name)];
    const head = h("header", {}, handle, h("h2", { class: "unseen" }, name), standing, h("div", { class: "ranks", role: "group", "aria-label": `Rank of ${name}` }, ranks));
    const attributes = { class: "card", tabindex: -1, role: "group", "data-place": index };
    const element = h("section", { ...attributes, onfocusin: () => this.send({ type: "focus", place: index }) },
      head, this.body(content, text, name), extras);
    return { element, standing, ranks, text, name };
  }

  body(content, text, name) {
    const length = lengthOf(content);
    if (length < LONG) return text;
    text.classList.add("long");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", `Text of ${name}`);
    const unfold = (event) => {
      const open = text.classList.toggle("open");
      event.target.setAttribute("aria-expanded", open);
      event.target.textContent = open ? "Show in a frame" : `Show all ${counted(length, "character")}`;
    };
    const label = `Show all ${counted(length, "character")}`;
    return [text, h("button", { type: "button", class: "quiet unfold", "aria-expanded": "false", onclick: unfold }, label)];
  }

  rankButtons(index, name) {
    return this.task.responses.map((_, i) => h("button", {
      type: "button", "aria-pressed": "false", "aria-label": `${name}: rank ${i + 1}`,
      onclick: (event) => this.send({ type: "rank", place: index, rank: i + 1, pointer: event.detail > 0 }),
    }, i + 1));
  }

  ratingRows(index, name) {
    const button = (attribute, rating) => h("button", {
      type: "button", "aria-pressed": "false", "data-attribute": attribute, "data-rating": rating,
      "aria-label": `${name}, ${attribute}: ${rating} of 5`,
      onclick: () => this.send({ type: "rate", place: index, attribute, rating }),
    }, rating);
    const row = (attribute) => h("div", { class: "rating", role: "group", "aria-label": `${attribute}, 5 is best` },
      h("span", {}, attribute), h("span", { class: "scale" }, [1, 2, 3, 4, 5].map((rating) => button(attribute, rating))));
    return this.settings.attributes.map(row);
  }

  flagRow(index, name) {
    if (this.settings.flags.length === 0) return null;
    const button = (flag) => h("button", {
      type: "button", class: "flag", "aria-pressed": "false", "data-flag": flag, "aria-label": `${name}: flag as ${flag}`,
      onclick: () => this.send({ type: "flag", place: index, flag }),
    }, flag);
    return h("div", { class: "flags", role: "group", "aria-label": `Flags of ${name}` },
      h("span", {}, "Flag"), this.settings.flags.map(button));
  }

  /** Marks what was chosen. */
  update(state) {
    this.cards.forEach((card, index) => this.mark(card, index, state));
  }

  mark({ element, standing, ranks, name }, index, state) {
    const words = standingOf(state, index);
    standing.textContent = words;
    element.setAttribute("aria-label", `${name}, ${words.toLowerCase()}`);
    element.classList.toggle("ranked", state.ranks[index] !== null);
    element.classList.toggle("current", state.focus === index);
    element.tabIndex = state.focus === index ? 0 : -1;
    ranks.forEach((button, i) => button.setAttribute("aria-pressed", state.ranks[index] === i + 1));
    for (const button of element.querySelectorAll("[data-rating]")) {
      const { attribute, rating } = button.dataset;
      button.setAttribute("aria-pressed", state.ratings[index][attribute] === Number(rating));
    }
    for (const button of element.querySelectorAll("[data-flag]")) {
      button.setAttribute("aria-pressed", state.flags[index].includes(button.dataset.flag));
    }
  }

  /** Puts the keyboard's focus on a card, and its head into view. */
  focus(index) {
    const { element } = this.cards[index];
    if (element.contains(document.activeElement) && document.activeElement !== element) document.activeElement.blur();
    element.focus({ preventScroll: true });
    const { top, bottom } = element.getBoundingClientRect();
    const floor = byId("dock").getBoundingClientRect().top;
    if (top < 0 ? bottom < floor / 2 : top > floor - 120) element.scrollIntoView({ block: "start" });
  }
}

/** How a response stands, in words. */
export function standingOf(state, index) {
  const rank = state.ranks[index];
  if (rank === null) return state.rest ? "Cannot tell" : "Not ranked";
  const others = state.ranks.flatMap((r, i) => (r === rank && i !== index ? [letter(i)] : []));
  return others.length > 0 ? `Rank ${rank}, tied with ${others.join(", ")}` : `Rank ${rank}`;
}

const turnsOf = (content) => (typeof content === "string" ? [{ role: null, content }] : content);
const lengthOf = (content) => turnsOf(content).reduce((sum, turn) => sum + turn.content.length, 0);

/** Nodes of a prompt or a response: a text, or the turns of a conversation. */
export function contentNodes(content, asText) {
  const turns = turnsOf(content);
  return turns.flatMap(({ role, content: text }) => [
    role && turns.length > 1 ? h("p", { class: "role" }, nodes(role)) : null,
    text.trim() === "" ? h("p", { class: "empty" }, text === "" ? "(an empty text)" : "(only white space)") : null,
    ...(asText || !isShort(text) ? plain(text) : markdown(text)),
  ]);
}
