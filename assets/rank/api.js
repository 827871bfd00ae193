// Requests to the server. A session is a secret in a header, which no other site can send; there are no cookies.
//
// A server that was started anew knows no sessions: the page then asks for one again, as the same person.

const TIMEOUT = 15_000;

/** The server said no: `status` is its HTTP status. */
export class Refused extends Error {
  constructor(status, message) {
    super(`${message.charAt(0).toUpperCase()}${message.slice(1)}.`.replace(/\.\.$/, "."));
    this.status = status;
  }
}

/** The server did not answer. */
export class Unreachable extends Error {}

async function request(method, path, { body, session, timeout = TIMEOUT } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (session) headers["x-kudos-session"] = session;
  const options = { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" };
  let response, answer;
  try {
    response = await fetch(path, { ...options, redirect: "error", signal: AbortSignal.timeout(timeout) });
    answer = await response.json();
  } catch {
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw new Refused(response.status, answer?.error ?? `The server answered ${response.status}.`);
  return answer;
}

/** What the server says to those who have no session: what is ranked, and whether it wants a token. */
export const about = () => request("GET", "/api/about");

/** One person's session. `who` is `{name, token}`. */
export class Session {
  constructor(who) {
    this.who = who;
    this.opened = null;
  }

  /** Opens the session; the answer says who the person is and what is asked. */
  async open() {
    this.opened ??= request("POST", "/api/session", { body: this.who });
    try {
      return await this.opened;
    } catch (error) {
      this.opened = null;
      throw error;
    }
  }

  /** A request in this session, which is opened again if the server has forgotten it. */
  async send(method, path, options = {}) {
    const { session } = await this.open();
    try {
      return await request(method, path, { ...options, session });
    } catch (error) {
      if (error.status !== 401) throw error;
      this.opened = null;
      const again = await this.open();
      return request(method, path, { ...options, session: again.session });
    }
  }
}
