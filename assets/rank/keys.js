// The keyboard: one key → one action. Keys are left alone in text fields, in dialogs, and with Ctrl, Alt or Meta.

const SECOND_DIGIT = 900; // milliseconds in which 1 and 2 are 12, where there are so many places

/** What each key does, as the help shows it. */
export const KEYS = [
  ["1 – 9", "give that rank to the marked response; the same rank again takes it away"],
  ["← →", "mark the response before or after"],
  ["0", "take its rank away"],
  ["c", "say that you cannot tell the rest"],
  ["Enter", "submit"],
  ["u", "undo, also what was submitted"],
  ["s", "skip, with a reason"],
  ["t", "show the texts as they are, or as Markdown"],
  ["f", "go to the flags of the marked response"],
  ["m", "write a comment"],
  ["?", "this help"],
];

const NAMED = new Map([
  ["ArrowLeft", "previous"], ["ArrowRight", "next"], ["Enter", "submit"], ["Backspace", "clear"], ["Delete", "clear"],
  ["0", "clear"], ["u", "undo"], ["s", "skip"], ["c", "rest"], ["t", "text"], ["f", "flags"], ["m", "comment"], ["?", "help"],
]);

/** Listens for keys; `call(name, digit)` is told what they mean, and `count()` how many places there are. */
export function watchKeys(call, count) {
  const digits = new Digits();
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || isElsewhere(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const digit = /^\d$/.test(key) ? digits.add(Number(key), count()) : null;
    const name = digit ? "digit" : NAMED.get(key);
    if (name === undefined) return;
    event.preventDefault();
    if (!event.repeat || name === "previous" || name === "next") call(name, digit);
  });
}

/** Whether the key belongs to a text field, a dialog, or a button that Enter presses. */
function isElsewhere({ key, target }) {
  if (document.querySelector("dialog[open]") || target.closest("input, textarea, select")) return true;
  return key === "Enter" && target.closest("button, a, summary") !== null;
}

/** Digits typed in a row. */
class Digits {
  constructor() {
    this.last = 0;
    this.at = -Infinity;
  }

  /** The number that was typed, `{value, complete}`; null for a 0 that begins none. */
  add(digit, count) {
    const now = performance.now();
    const both = this.last * 10 + digit;
    const continues = this.last > 0 && now - this.at < SECOND_DIGIT && both <= count;
    const value = continues ? both : digit;
    this.at = now;
    this.last = continues ? 0 : digit;
    return value === 0 ? null : { value, complete: value * 10 > count, continues };
  }
}
