// Ballots on their way. A ballot is kept before it is sent, and forgotten only when the server says that it is stored.
//
// A ballot has its own identifier, so sending it twice stores it once. Ballots of another person, or for another
// database, wait in the browser until that person or that database is here again.

import { Refused, Session, Unreachable } from "./api.js";
import * as kept from "./kept.js";

const WAITS = [500, 1000, 2000, 4000, 8000];

/** The ballots of one database. */
export class Outbox {
  /** `onChange(count, problem)` is told how many wait, and why. */
  constructor(database, session, onChange) {
    this.start = `ballot/${database}/`;
    this.session = session;
    this.onChange = onChange;
    this.sending = null;
    this.delivering = null; // the key that `deliver` is busy with
    const retry = () => this.flush().catch(() => {});
    addEventListener("online", retry);
    document.addEventListener("visibilitychange", () => document.hidden || retry());
  }

  /** Keeps a ballot until it is stored. */
  put(ballot) {
    kept.write(this.start + ballot.vote, { who: this.session.who, ballot, at: Date.now() });
  }

  waiting() {
    return kept.keys(this.start).length;
  }

  /** Sends a ballot that was put, again and again until there is an answer; the answer. */
  async deliver(ballot) {
    this.delivering = this.start + ballot.vote;
    try {
      return await this.insist(this.delivering);
    } finally {
      this.delivering = null;
    }
  }

  async insist(key) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.send(key);
      } catch (error) {
        if (!isTemporary(error)) throw error;
        this.onChange(this.waiting(), error.message);
        await this.pause(WAITS[Math.min(attempt, WAITS.length - 1)]);
      }
    }
  }

  /** Sends all that wait, oldest first; an error if the server does not answer. */
  flush() {
    this.sending ??= this.sendAll().finally(() => { this.sending = null; });
    return this.sending;
  }

  async sendAll() {
    this.wake?.();
    const entries = kept.keys(this.start).filter((key) => key !== this.delivering).map((key) => [key, kept.read(key)]);
    entries.sort(([, a], [, b]) => (a?.at ?? 0) - (b?.at ?? 0));
    for (const [key] of entries) {
      try {
        await this.send(key);
      } catch (error) {
        if (error instanceof Unreachable) throw error;
      }
    }
  }

  /** Sends what stands under a key. What the server refuses for good is kept aside, and not sent again. */
  async send(key) {
    const entry = kept.read(key);
    if (entry === null) return null; // another tab was faster
    const own = JSON.stringify(entry.who) === JSON.stringify(this.session.who);
    const session = own ? this.session : new Session(entry.who);
    try {
      const receipt = await session.send("POST", "/api/votes", { body: entry.ballot });
      kept.forget(key);
      this.onChange(this.waiting(), null);
      return receipt;
    } catch (error) {
      if (error instanceof Refused && !isTemporary(error)) this.setAside(key, entry, error);
      throw error;
    }
  }

  setAside(key, entry, error) {
    kept.write(key.replace("ballot/", "refused/"), { ...entry, why: error.message });
    kept.forget(key);
    this.onChange(this.waiting(), null);
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
}

/** Whether the same ballot may be stored later: no answer, a busy server, or a token that is not the server's now. */
function isTemporary(error) {
  return error instanceof Unreachable || [401, 403, 408, 429].includes(error.status) || error.status >= 500;
}
