// The inside of a Markdown paragraph → nodes: code, bold, italics, strikethrough, and links as text with their address.
//
// One pass that remembers where each closing delimiter stands next: the time is linear in the text, whatever it holds.
// No address is ever followed: a link or an image is its text and its address.

import { h } from "./dom.js";
import { nodes } from "./text.js";

const OPENERS = /[`*_~[!\\]/g;
const SPANS = [["**", "strong"], ["__", "strong"], ["~~", "s"], ["*", "em"], ["_", "em"]];
const MAX_DEPTH = 6;

/** Nodes of one paragraph. */
export function inline(text, budget, depth = 0) {
  const made = [];
  const known = new Map();
  let at = 0;
  let from = 0;
  for (;;) {
    OPENERS.lastIndex = from;
    const start = OPENERS.exec(text)?.index ?? -1;
    if (start < 0) break;
    const found = depth < MAX_DEPTH ? span(text, start, known) : null;
    if (found === null) {
      from = start + runLength(text, start);
      continue;
    }
    made.push(...nodes(text.slice(at, start), budget), ...build(found, budget, depth));
    at = from = found.end;
  }
  return [...made, ...nodes(text.slice(at), budget)];
}

function build(found, budget, depth) {
  if (found.kind === "text") return nodes(found.text, budget);
  if (found.kind === "code") return [h("code", { dir: "auto" }, nodes(found.text, budget))];
  if (found.kind === "link") return link(found, budget, depth);
  return [h(found.kind, {}, inline(found.text, budget, depth + 1))];
}

function link({ text, address, image }, budget, depth) {
  const label = image ? [`image: `, ...nodes(text, budget)] : inline(text, budget, depth + 1);
  return [h("span", { class: "link" }, label), h("span", { class: "address" }, ` (`, nodes(address, budget), `)`)];
}

/** What begins at `start`, with its end; null if it is plain text after all. */
function span(text, start, known) {
  const c = text[start];
  if (c === "\\") return escaped(text, start);
  if (c === "`") return code(text, start, known);
  if (c === "[" || c === "!") return bracket(text, start, known);
  for (const [delimiter, kind] of SPANS) {
    if (text.startsWith(delimiter, start)) return delimited(text, start, delimiter, kind, known);
  }
  return null;
}

function escaped(text, start) {
  const next = text[start + 1] ?? "";
  return /[!-/:-@[-`{-~]/.test(next) && next !== "" ? { kind: "text", text: next, end: start + 2 } : null;
}

function code(text, start, known) {
  const length = runLength(text, start);
  const fence = "`".repeat(length);
  const close = closing(text, fence, start + length, known);
  if (close < 0) return null;
  return { kind: "code", text: text.slice(start + length, close).trim(), end: close + length };
}

function bracket(text, start, known) {
  const image = text[start] === "!";
  const open = start + (image ? 1 : 0);
  if (text[open] !== "[") return null;
  const middle = closing(text, "](", open + 1, known);
  const end = middle < 0 ? -1 : closing(text, ")", middle + 2, known);
  if (end < 0 || middle - open > 1000 || end - middle > 4000) return null;
  return { kind: "link", image, text: text.slice(open + 1, middle), address: text.slice(middle + 2, end), end: end + 1 };
}

function delimited(text, start, delimiter, kind, known) {
  const from = start + delimiter.length;
  const within = delimiter[0] === "_" && /[\p{L}\p{N}]/u.test(text[start - 1] ?? "");
  if (within || /\s/.test(text[from] ?? " ")) return null;
  let close = closing(text, delimiter, from + 1, known);
  if (close > 0 && delimiter.length === 2 && text[close + 2] === delimiter[0]) close += 1; // **a *b***
  if (close < 0 || /\s/.test(text[close - 1])) return null;
  return { kind, text: text.slice(from, close), end: close + delimiter.length };
}

/** Where `delimiter` stands next, from `from` on; -1 if nowhere. Each stretch of the text is searched once. */
function closing(text, delimiter, from, known) {
  const before = known.get(delimiter);
  if (before !== undefined && (before < 0 || before >= from)) return before;
  const at = text.indexOf(delimiter, from);
  known.set(delimiter, at);
  return at;
}

function runLength(text, start) {
  let end = start + 1;
  while (text[end] === text[start] && end - start < 1000) end += 1;
  return end - start;
}
