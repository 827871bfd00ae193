// The page's beginning: who is here, then their first task.
//
// A link may carry a token behind `#`, which browsers send to no server. It is kept here, and taken from the address.

import { Refused, Session, about } from "./api.js";
import { byId, show } from "./dom.js";
import * as kept from "./kept.js";
import { Ranking } from "./ranking.js";

const PAGES = ["welcome", "task", "done"];

async function begin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname);
  const info = await patiently(about);
  document.title = info.review ? "Review labels · Kudos" : document.title;
  const known = kept.read("who");
  const who = token && token !== known?.token ? { token } : known;
  if (who && (who.name || who.token)) return enter(who, info);
  welcome(info);
}

/** Asks again until there is an answer. */
async function patiently(ask) {
  for (;;) {
    try {
      const answer = await ask();
      notice(null);
      return answer;
    } catch (error) {
      if (error instanceof Refused) throw error;
      notice(`${error.message} Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}

function notice(text) {
  byId("notice").textContent = text ?? "";
  show(byId("notice"), text !== null);
}

/** Asks for a name, and for a token where the server wants one. */
function welcome(info, token = null, problem = null) {
  PAGES.forEach((page) => show(byId(page), page === "welcome"));
  show(byId("token-field"), info.needs_token && !token);
  byId("name").value = kept.read("who")?.name ?? info.suggested ?? "";
  byId("welcome-problem").textContent = problem ?? "";
  show(byId("welcome-problem"), problem !== null);
  byId("welcome-form").onsubmit = (event) => {
    event.preventDefault();
    const typed = byId("token").value.trim();
    enter({ name: byId("name").value.trim(), token: token || typed || undefined }, info);
  };
  byId("name").focus();
}

async function enter(who, info) {
  const session = new Session(who);
  try {
    const granted = await patiently(() => session.open());
    if (granted.annotator === null) return welcome(info, who.token);
    kept.write("who", who);
    show(byId("welcome"), false);
    await new Ranking(session, granted).start();
  } catch (error) {
    welcome(info, null, error.message);
  }
}

begin().catch((error) => notice(error.message));
