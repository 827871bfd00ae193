// What is remembered of one person's work in this browser: drafts of tasks, and the votes that undo takes back.

import * as kept from "./kept.js";

const HISTORY = 100;

/** The memory of a person and a database. */
export class Memory {
  constructor(person) {
    this.person = person;
  }

  draftKey(task) {
    return `draft/${this.person}/${task}`;
  }

  draft(task) {
    return kept.read(this.draftKey(task));
  }

  /** Keeps what was chosen so far, without the steps of undo. */
  keep(task, vote, seconds, { past, ...state }) {
    kept.write(this.draftKey(task), { vote, seconds, state });
  }

  drop(task) {
    kept.forget(this.draftKey(task));
  }

  /** Calls back when another tab finished a task. */
  watch(finished) {
    kept.watch(`draft/${this.person}/`, (key, value) => value === null && finished(key));
  }

  /** The votes of this browser, the latest last. */
  votes() {
    return kept.read(`history/${this.person}`) ?? [];
  }

  add(vote) {
    kept.write(`history/${this.person}`, [...this.votes().slice(-HISTORY), vote]);
  }

  remove(vote) {
    kept.write(`history/${this.person}`, this.votes().filter((other) => other !== vote));
  }
}
