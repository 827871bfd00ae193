// The ranking page's parts, and what they show of a state.

import { Board } from "./board.js";
import { Cards, contentNodes } from "./cards.js";
import { announce, byId, counted, fill, h, letter, listed, show } from "./dom.js";
import { watchDrags } from "./drag.js";
import { isTouched, obstacle } from "./state.js";

/** The page; `send` takes the actions of the person. */
export class View {
  constructor(settings, send) {
    this.task = null;
    this.settings = settings;
    this.send = send;
    this.asText = false;
    this.cards = new Cards(byId("responses"), settings, send);
    this.board = new Board(byId("board"), (place) => this.focus(place));
    watchDrags(document.body, () => [...byId("board").querySelectorAll(".slot")], send);
    byId("comment").addEventListener("input", (event) => send({ type: "comment", text: event.target.value }));
    byId("comment").addEventListener("keydown", (event) => { if (event.key === "Escape") this.focus(this.state.focus); });
    this.introduce(settings);
  }

  introduce({ annotator, review }) {
    byId("person").textContent = annotator;
    byId("person").setAttribute("aria-label", `You are ${annotator}. Rank as another person`);
    for (const id of ["person", "results-link", "help-button"]) show(byId(id), true);
    if (review) byId("question").textContent = "Which is better? 1 is best, equal numbers are a tie. The file's label comes after your choice.";
  }

  /** Connects the buttons. */
  listen({ submit, undo, skip, rest, text, help, leave }) {
    const buttons = { submit, undo, skip, rest, "as-text": text, "help-button": help, person: leave, "done-undo": undo };
    for (const [id, call] of Object.entries(buttons)) {
      byId(id).onclick = (event) => {
        if (event.detail > 0 && this.task) event.currentTarget.blur();
        call();
      };
    }
  }

  /** Shows a task from its top. */
  show(task, state, words) {
    this.task = task;
    this.words = words;
    this.prompt();
    this.cards.build(task, this.asText);
    this.board.build(task.responses.length);
    byId("comment").value = state.comment;
    byId("remark").open = state.comment !== "";
    this.page("task");
    this.update(state);
    scrollTo(0, 0);
    this.cards.focus(state.focus);
    scrollTo(0, 0);
  }

  /** Whole transcripts have no prompt of their own. */
  prompt() {
    const { prompt } = this.task;
    fill(byId("prompt"), prompt === null ? h("p", {}, "Each response below is a whole conversation.") : contentNodes(prompt, this.asText));
  }

  page(name) {
    for (const id of ["welcome", "task", "done"]) show(byId(id), id === name);
    show(byId("dock"), name === "task");
    document.body.classList.toggle("ranking", name === "task");
  }

  /** Marks what was chosen, and says what is missing. */
  update(state) {
    this.state = state;
    this.cards.update(state);
    this.board.update(state);
    const why = obstacle(state);
    byId("rest").setAttribute("aria-pressed", state.rest);
    byId("submit").setAttribute("aria-disabled", why !== null);
    if (isTouched(state)) this.words = "";
    this.stateLine(`${this.words} ${why ?? ready(state)}`, "");
    if (byId("comment").value !== state.comment) byId("comment").value = state.comment;
  }

  stateLine(text, kind) {
    byId("state").textContent = text.trim();
    byId("state").className = kind;
  }

  /** Says why something cannot be done. */
  urge(text) {
    if (this.task === null) return announce(text);
    this.stateLine(text, "urgent");
    announce(text);
  }

  saved() {
    this.stateLine("Saved.", "");
  }

  saving() {
    this.stateLine("Saving…", "");
    byId("submit").setAttribute("aria-disabled", true);
  }

  /** How many ballots wait to be stored, and why. */
  waiting(count, problem, keeps) {
    const kept = keeps ? "kept in this browser" : "kept while this page is open: do not close it";
    const ballots = count > 0 ? ` ${counted(count, "ranking")} ${count === 1 ? "is" : "are"} ${kept} and will be sent again.` : "";
    byId("notice").textContent = problem === null ? "" : `${problem}${ballots}`;
    show(byId("notice"), problem !== null);
  }

  progress({ own_done, own_left, all_done, all_target }) {
    const own = own_done + own_left;
    byId("meter").max = Math.max(own, 1);
    byId("meter").value = own_done;
    byId("progress-text").textContent = `You: ${own_done} of ${own} · All: ${all_done} of ${all_target}`;
    show(byId("progress"), true);
  }

  /** Nothing to rank, now or at all. */
  done(moreToCome, canUndo) {
    this.task = null;
    byId("done-title").textContent = moreToCome ? "Waiting for responses" : "All done";
    byId("done-lead").textContent = moreToCome
      ? "Responses are still being written. The next ones appear here as soon as they are there."
      : "There is nothing left for you to rank. All your rankings are stored. Thank you.";
    show(byId("done-undo"), canUndo);
    this.page("done");
    announce(byId("done-title").textContent);
  }

  focus(place) {
    this.cards.focus(place);
  }

  goTo(name, place) {
    if (name === "flags") return this.cards.cards[place].element.querySelector(".flag, [data-rating]")?.focus();
    byId("remark").open = true;
    byId("comment").focus();
  }

  toggleText() {
    this.asText = !this.asText;
    byId("as-text").setAttribute("aria-pressed", this.asText);
    if (this.task === null) return;
    this.prompt();
    this.cards.write(this.asText);
    announce(this.asText ? "Texts as they are." : "Texts as Markdown.");
  }
}

function ready(state) {
  const ranked = state.ranks.flatMap((rank, place) => (rank === null ? [] : [letter(place)]));
  return state.ranks.includes(null) ? `Ready to submit: the rest are below ${listed(ranked)}.` : "Ready to submit.";
}
