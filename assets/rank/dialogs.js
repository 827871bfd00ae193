// The dialogs: help, the reasons to skip, and the label of a pair under review.

import { byId, fill, h, letter, listed } from "./dom.js";
import { KEYS } from "./keys.js";

/** Shows how one ranks. */
export function help() {
  const dialog = byId("help-dialog");
  const rows = KEYS.map(([key, meaning]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, meaning)));
  fill(dialog,
    h("h2", { id: "help-title" }, "How to rank"),
    h("p", {}, "Give each response a rank: 1 is best, and equal ranks are a tie. There are three ways, and all do the same."),
    h("ul", {},
      h("li", {}, h("b", {}, "Buttons: "), "press a number on the response."),
      h("li", {}, h("b", {}, "Drag: "), "pull a letter to a place at the bottom of the page. Between two places is between them."),
      h("li", {}, h("b", {}, "Keys: "), "type a digit. The mark then goes on to the next response.")),
    h("table", { class: "keys" }, h("tbody", {}, rows)),
    h("p", {}, "The responses come in an order of your own, so that no place is favoured. Who wrote them is hidden."),
    h("p", {}, "A ranking is saved when the page says so. Until then your browser keeps it, and sends it again."),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  dialog.showModal();
}

/** Asks why a task is skipped; `null` if it is not. */
export function skipReason(reasons) {
  const dialog = byId("skip-dialog");
  const choice = ([value, words], i) => h("button", { value, class: "choice" }, h("kbd", {}, i + 1), ` ${words}`);
  fill(dialog,
    h("h2", { id: "skip-title" }, "Why skip these?"),
    h("form", { method: "dialog", class: "choices" }, reasons.map(choice),
      h("button", { value: "", class: "quiet" }, "Do not skip ", h("kbd", {}, "Esc"))));
  return answer(dialog, (digit) => reasons[digit - 1]?.[0]);
}

/** Shows the label that a file gives to responses which the person has just ranked; "undo" to rank them again. */
export function reveal({ best, agrees }, count) {
  const dialog = byId("reveal-dialog");
  const said = best.length > 0 ? `${listed(best.map(letter))} is ${count === 2 ? "better" : "best"}` : "they are equally good";
  fill(dialog,
    h("h2", { id: "reveal-title" }, "The label in the file"),
    h("p", { class: "lead" }, `The file says that ${said}.`),
    h("p", {}, `${verdict(agrees)} This is recorded.`),
    h("form", { method: "dialog", class: "buttons" },
      h("button", { value: "on", class: "primary", autofocus: true }, "Next ", h("kbd", {}, "Enter")),
      h("button", { value: "undo" }, "Rank it again ", h("kbd", {}, "u"))));
  return answer(dialog, (digit, key) => (key === "u" ? "undo" : undefined));
}

function verdict(agrees) {
  if (agrees === null) return "Your ranking says neither, so the label stays open.";
  if (agrees === 1) return "Your ranking agrees: the label stands.";
  if (agrees === 0) return "Your ranking says the opposite: the label does not stand.";
  return `Your ranking agrees with ${Math.round(100 * agrees)} % of it.`;
}

/** The value of the button that closes a dialog; null for Escape. `byKey(digit, key)` gives those of keys. */
function answer(dialog, byKey) {
  return new Promise((resolve) => {
    const press = (event) => {
      const value = byKey(Number(event.key), event.key.toLowerCase());
      if (value === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      dialog.close(value);
    };
    dialog.returnValue = "";
    dialog.addEventListener("keydown", press);
    dialog.addEventListener("close", () => {
      dialog.removeEventListener("keydown", press);
      resolve(dialog.returnValue || null);
    }, { once: true });
    dialog.showModal();
  });
}
