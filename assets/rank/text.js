// A hostile text → nodes: every character is shown, and none acts.
//
// Control characters, bidirectional overrides and other invisible characters become marks that name them. Long runs of
// combining marks, which would paint over the lines around, become a mark with their number. A long text is cut into
// blocks that the browser lays out only when they come into view.

import { h } from "./dom.js";

const HIDDEN = "\\u0000-\\u0008\\u000B\\u000C\\u000E-\\u001F\\u007F-\\u009F\\u00AD\\u061C\\u180E\\u200B\\u200E\\u200F" +
  "\\u2028-\\u202E\\u2060-\\u2069\\uFEFF\\uFFF9-\\uFFFB\\u{E0000}-\\u{E007F}";
/** What is not shown as it is: a run of one hidden character, or more marks on a letter than writing needs. */
const SPECIAL = new RegExp(`([${HIDDEN}])\\1*|(?<=\\p{M}{6})\\p{M}{3,}`, "gu");

const NAMES = new Map([
  [0x00, "null"], [0x07, "bell"], [0x08, "backspace"], [0x1b, "escape"], [0x7f, "delete"], [0xad, "soft hyphen"],
  [0x61c, "Arabic letter mark"], [0x200b, "zero-width space"], [0x200e, "left-to-right mark"],
  [0x200f, "right-to-left mark"], [0x202a, "left-to-right embedding"], [0x202b, "right-to-left embedding"],
  [0x202c, "end of embedding"], [0x202d, "left-to-right override"], [0x202e, "right-to-left override"],
  [0x2060, "word joiner"], [0x2066, "left-to-right isolate"], [0x2067, "right-to-left isolate"],
  [0x2068, "first strong isolate"], [0x2069, "end of isolate"], [0xfeff, "byte order mark"],
]);
/** Marks of one text that are elements; further ones are plain text, so that a text of marks stays light. */
const MAX_MARKS = 2000;
const BLOCK = 4000;

/** Nodes of a piece of text. `budget` counts the marks of a whole response. */
export function nodes(text, budget = { marks: 0 }) {
  const made = [];
  let at = 0;
  for (const match of text.matchAll(SPECIAL)) {
    if (match.index > at) made.push(text.slice(at, match.index));
    made.push(mark(match[0], match[1] !== undefined, budget));
    at = match.index + match[0].length;
  }
  if (at < text.length) made.push(text.slice(at));
  return made;
}

function mark(run, hidden, budget) {
  const characters = run.length / String.fromCodePoint(run.codePointAt(0)).length;
  const [label, title] = hidden ? named(run.codePointAt(0), characters) : combining([...run].length);
  budget.marks += 1;
  if (budget.marks > MAX_MARKS) return `⟨${label}⟩`;
  return h("bdi", { class: "mark", title }, label);
}

function named(code, count) {
  const point = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  const label = count > 1 ? `${point} ×${count.toLocaleString("en")}` : point;
  return [label, `${NAMES.get(code) ?? "invisible character"}, shown and not obeyed`];
}

function combining(count) {
  return [`+${count.toLocaleString("en")} marks`, "combining marks on one letter, not drawn"];
}

/** A text as it is, with its line breaks. */
export function plain(text, budget = { marks: 0 }) {
  const blocks = cut(text.replace(/\r\n?/g, "\n"));
  return blocks.map((block) => h("div", { class: "plain", dir: "auto" }, nodes(block, budget)));
}

/** The text in pieces of some thousand characters, cut at line ends where there are any. */
export function cut(text) {
  const pieces = [];
  let at = 0;
  while (text.length - at > BLOCK * 1.5) {
    const end = cutting(text, at);
    pieces.push(text.slice(at, end));
    at = text[end] === "\n" ? end + 1 : end;
  }
  pieces.push(text.slice(at));
  return pieces;
}

function cutting(text, at) {
  const line = text.lastIndexOf("\n", at + BLOCK);
  if (line > at) return line;
  const space = text.lastIndexOf(" ", at + BLOCK);
  if (space > at) return space + 1;
  const joined = /[\uDC00-\uDFFF]?\p{M}*/uy; // the half of a character, and the marks on it
  joined.lastIndex = at + BLOCK;
  return at + BLOCK + joined.exec(text)[0].length;
}
