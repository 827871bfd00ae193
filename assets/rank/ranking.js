// One person's work: a task is shown, ranked, submitted, and the next one comes. Undo goes back, over submissions too.

import { Refused, Unreachable } from "./api.js";
import { Clock } from "./clock.js";
import * as dialogs from "./dialogs.js";
import { announce, byId, counted, letter } from "./dom.js";
import { keeps, newId, write } from "./kept.js";
import { watchKeys } from "./keys.js";
import { Memory } from "./memory.js";
import { press } from "./moves.js";
import { Outbox } from "./outbox.js";
import { act, dense, fresh, obstacle, open } from "./state.js";
import { standingOf } from "./cards.js";
import { View } from "./view.js";

/** The work of a session; `granted` is what the server said of it. */
export class Ranking {
  constructor(session, granted) {
    this.session = session;
    this.settings = granted;
    this.clock = new Clock();
    this.busy = true;
    this.task = null;
    this.view = new View(granted, (action) => this.send(action));
    this.outbox = new Outbox(granted.database, session, (count, problem) => this.view.waiting(count, problem, keeps()));
    this.memory = new Memory(`${granted.database}/${granted.annotator}`);
  }

  /** Sends what was left over, and shows the first task. */
  async start() {
    this.view.listen({
      submit: () => this.submit(), undo: () => this.undo(), skip: () => this.skip(), rest: () => this.rest(),
      text: () => this.view.toggleText(), help: () => dialogs.help(), leave: () => this.leave(),
    });
    watchKeys((name, digit) => press(this, name, digit), () => this.state?.count ?? 0);
    this.memory.watch((key) => this.elsewhere(key));
    setInterval(() => this.keepDraft(), 5000);
    await this.next();
  }

  /** Another person: a new page, so that nothing of this one's stays. */
  leave() {
    write("who", { token: this.session.who.name ? this.session.who.token : undefined });
    location.reload();
  }

  /** Shows the next task, whenever the server has one. */
  async next(words = "") {
    this.busy = true;
    for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
      try {
        await this.outbox.flush(); // what waits may be for the very task that would come
        const answer = await this.session.send("GET", "/api/task");
        this.view.waiting(this.outbox.waiting(), null, keeps());
        this.view.progress(answer.progress);
        if (answer.task !== null) return this.begin(answer.task, null, words);
        this.nothing(answer.more_to_come);
        if (!answer.more_to_come) return;
        wait = 1000;
      } catch (error) {
        this.view.waiting(this.outbox.waiting(), error.message, keeps());
        if (error instanceof Refused && error.status < 500) return;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  nothing(moreToCome) {
    this.task = null;
    this.busy = false;
    this.view.done(moreToCome, this.memory.votes().length > 0);
  }

  /** Shows a task as its draft left it, or as a withdrawn ballot had it. */
  begin(task, ballot, words) {
    this.task = task;
    const draft = this.memory.draft(task.task) ?? (ballot ? { vote: newId(), seconds: ballot.seconds, state: ballot } : null);
    this.state = { ...fresh(task.responses.length), ...draft?.state };
    this.vote = draft?.vote ?? newId();
    this.clock.restart(draft?.seconds ?? 0);
    this.busy = false;
    this.keepDraft();
    this.view.show(task, this.state, words);
    announce(`${words} ${counted(task.responses.length, "response")} to rank.`);
  }

  keepDraft() {
    if (this.task !== null && !this.busy) this.memory.keep(this.task.task, this.vote, this.clock.seconds, this.state);
  }

  /** Another tab finished the task that this one shows. */
  elsewhere(key) {
    if (this.task !== null && !this.busy && key === this.memory.draftKey(this.task.task)) this.next("Ranked in another tab.");
  }

  /** One action of the person, from wherever. */
  send(action) {
    if (this.task === null || this.busy) return;
    const before = this.state;
    this.state = act(before, action);
    if (this.state === before) return;
    this.view.update(this.state);
    if (action.type === "focus") return;
    this.keepDraft();
    if (action.pointer) this.view.focus(action.place);
    if (["rank", "put", "insert", "clear"].includes(action.type)) this.say(action.place);
  }

  say(place) {
    const left = open(this.state).length;
    const rest = left === 0 ? "All are ranked. Enter submits." : `${left} not ranked.`;
    announce(`Response ${letter(place)}: ${standingOf(this.state, place)}. ${rest}`);
  }

  rest() {
    if (open(this.state).length === this.state.count) return this.view.urge("Rank at least one response first.");
    if (open(this.state).length === 0) return this.view.urge("All responses are ranked already.");
    this.send({ type: "rest", value: !this.state.rest });
    announce(this.state.rest ? "The rest: cannot tell. Enter submits." : "The rest is open again.");
  }

  async skip() {
    if (this.task === null || this.busy) return;
    const reason = await dialogs.skipReason(this.settings.skip_reasons);
    if (reason !== null) await this.submit(reason);
  }

  /** Keeps the ballot, sends it, and goes on once it is stored. */
  async submit(skipped = null) {
    if (this.task === null || this.busy) return;
    const why = skipped === null ? obstacle(this.state) : null;
    if (why !== null) return this.view.urge(`${why} ${this.advice()}`);
    const ballot = this.ballot(skipped);
    this.busy = true;
    this.outbox.put(ballot);
    this.memory.add(ballot.vote);
    this.memory.drop(ballot.task);
    this.view.saving();
    await this.delivered(ballot);
  }

  advice() {
    const nothing = open(this.state).length === this.state.count;
    return nothing ? "Give the best one a 1." : "Rank the rest, or press “Cannot tell the rest”.";
  }

  async delivered(ballot) {
    try {
      const receipt = await this.outbox.deliver(ballot);
      this.view.saved();
      const { reveal } = receipt ?? {};
      if (reveal && (await dialogs.reveal(reveal, ballot.ranks.length)) === "undo") return await this.withdraw();
      await this.next(ballot.skipped ? "Skipped." : "Saved.");
    } catch (error) {
      await this.next(`Not stored: ${error.message}`);
    }
  }

  ballot(skipped) {
    const { ranks, ratings, flags, comment } = this.state;
    const chosen = skipped === null ? dense(ranks) : ranks.map(() => null);
    return { vote: this.vote, task: this.task.task, ranks: chosen, ratings, flags, comment, skipped, seconds: this.clock.seconds };
  }

  /** Takes back the last step of this task, or else the last ballot. */
  async undo() {
    if (this.busy) return;
    if (this.task !== null && this.state.past.length > 0) {
      this.state = act(this.state, { type: "undo" });
      this.view.update(this.state);
      this.view.focus(this.state.focus);
      this.keepDraft();
      return announce("Undone.");
    }
    if (this.memory.votes().length === 0) return this.view.urge("There is nothing to undo.");
    this.keepDraft();
    await this.withdraw();
  }

  async withdraw() {
    const vote = this.memory.votes().at(-1);
    this.busy = true;
    try {
      const { task, ballot, progress } = await this.session.send("DELETE", `/api/votes/${vote}`);
      this.memory.remove(vote);
      this.view.progress(progress);
      this.begin(task, ballot, "Taken back: rank these again.");
    } catch (error) {
      this.busy = false;
      if (!(error instanceof Unreachable)) this.memory.remove(vote);
      if (this.task === null) await this.next(error.message);
      else this.view.urge(error.message);
    }
  }
}
