// What each key does to the work in progress.

import * as dialogs from "./dialogs.js";
import { nextOpen } from "./state.js";

/** A key was pressed that means `name`; for a rank, `digit` says which. */
export function press(ranking, name, digit) {
  if (name === "help") return dialogs.help();
  if (name === "undo") return ranking.undo();
  if (ranking.task === null || ranking.busy) return;
  const { focus } = ranking.state;
  switch (name) {
    case "digit": return rank(ranking, focus, digit);
    case "previous": return mark(ranking, focus - 1);
    case "next": return mark(ranking, focus + 1);
    case "clear": return ranking.send({ type: "clear", place: focus });
    case "submit": return ranking.submit();
    case "skip": return ranking.skip();
    case "rest": return ranking.rest();
    case "text": return ranking.view.toggleText();
    default: return ranking.view.goTo(name, focus);
  }
}

function mark(ranking, place) {
  ranking.send({ type: "focus", place });
  ranking.view.focus(ranking.state.focus);
}

/** A rank, and on to the next response that has none. */
function rank(ranking, place, { value, complete, continues }) {
  ranking.send({ type: continues ? "put" : "rank", place, rank: value });
  const onwards = complete && ranking.state.ranks[place] === value ? nextOpen(ranking.state, place) : null;
  ranking.view.focus(onwards ?? place);
}
