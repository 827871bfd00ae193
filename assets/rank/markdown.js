// Markdown → nodes, for reading: headings, paragraphs, lists, quotes, tables, rules and code blocks.
//
// A small part of CommonMark, one pass over the lines. What it does not know it shows as it is written. HTML is text.

import { h } from "./dom.js";
import { inline } from "./inline.js";
import { cut, nodes, plain } from "./text.js";

/** Longer texts are shown as they are: their structure would be more elements than a page should hold. */
const MAX_LENGTH = 200_000;
const MAX_DEPTH = 5;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const BULLET = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+)(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Whether a text is short enough to be laid out as Markdown. */
export const isShort = (text) => text.length <= MAX_LENGTH;

/** Nodes of a whole text. */
export function markdown(text) {
  const budget = { marks: 0 };
  if (!isShort(text)) return plain(text, budget);
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), budget, 0);
}

function blocks(lines, budget, depth) {
  const made = [];
  const at = { line: 0 };
  while (at.line < lines.length) {
    const block = next(lines, at, budget, depth);
    if (block !== null) made.push(block);
  }
  return made;
}

/** The block that begins at a line; `at` moves behind it. */
function next(lines, at, budget, depth) {
  const line = lines[at.line];
  if (line.trim() === "") { at.line += 1; return null; }
  if (FENCE.test(line)) return fenced(lines, at, budget);
  if (RULE.test(line)) { at.line += 1; return h("hr"); }
  const heading = HEADING.exec(line);
  if (heading) {
    at.line += 1;
    return h("p", { class: `heading level-${heading[1].length}`, dir: "auto" }, inline(heading[2], budget));
  }
  if (depth < MAX_DEPTH && QUOTE.test(line)) return quote(lines, at, budget, depth);
  if (depth < MAX_DEPTH && BULLET.test(line)) return list(lines, at, budget, depth);
  if (line.includes("|") && DIVIDER.test(lines[at.line + 1] ?? "")) return table(lines, at, budget);
  return paragraph(lines, at, budget, depth);
}

function fenced(lines, at, budget) {
  const fence = FENCE.exec(lines[at.line])[1];
  const first = at.line + 1;
  at.line = first;
  const isEnd = (line) => line.trim().startsWith(fence) && /^([`~])\1*$/.test(line.trim());
  while (at.line < lines.length && !isEnd(lines[at.line])) at.line += 1;
  const code = lines.slice(first, at.line).join("\n");
  at.line += 1;
  return h("pre", { tabindex: 0, dir: "ltr" }, h("code", {}, nodes(code, budget)));
}

function quote(lines, at, budget, depth) {
  const inner = taken(lines, at, (line) => QUOTE.test(line)).map((line) => line.replace(QUOTE, ""));
  return h("blockquote", { dir: "auto" }, blocks(inner, budget, depth + 1));
}

function list(lines, at, budget, depth) {
  const first = BULLET.exec(lines[at.line]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  while (at.line < lines.length) {
    const match = BULLET.exec(lines[at.line]);
    if (!match || /\d/.test(match[2]) !== ordered || RULE.test(lines[at.line])) break;
    items.push(item(lines, at, match, budget, depth));
  }
  return ordered ? h("ol", { start: parseInt(first[2], 10), dir: "auto" }, items) : h("ul", { dir: "auto" }, items);
}

/** One point of a list, with the indented lines that belong to it. */
function item(lines, at, match, budget, depth) {
  const inner = [match[4]];
  at.line += 1;
  const belongs = (line, following) => /^\s{2,}\S/.test(line) || (line.trim() === "" && /^\s{2,}\S/.test(following ?? ""));
  while (at.line < lines.length && belongs(lines[at.line], lines[at.line + 1])) {
    inner.push(lines[at.line].replace(/^\s{1,4}/, ""));
    at.line += 1;
  }
  while (at.line < lines.length && lines[at.line].trim() === "" && BULLET.test(lines[at.line + 1] ?? "")) at.line += 1;
  return h("li", { dir: "auto" }, blocks(inner, budget, depth + 1));
}

function table(lines, at, budget) {
  const head = cells(lines[at.line]);
  at.line += 2;
  const rows = taken(lines, at, (line) => line.includes("|") && line.trim() !== "").map(cells);
  const row = (texts, name) => h("tr", {}, head.map((_, i) => h(name, { dir: "auto" }, inline(texts[i] ?? "", budget))));
  const body = h("tbody", {}, rows.map((texts) => row(texts, "td")));
  return h("div", { class: "wide", tabindex: 0 }, h("table", {}, h("thead", {}, row(head, "th")), body));
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").slice(0, 50).map((cell) => cell.trim());
}

function paragraph(lines, at, budget, depth) {
  const starts = (line) => line.trim() === "" || FENCE.test(line) || HEADING.test(line) || RULE.test(line) ||
    (depth < MAX_DEPTH && (QUOTE.test(line) || BULLET.test(line)));
  const first = lines[at.line];
  at.line += 1;
  const text = [first, ...taken(lines, at, (line) => !starts(line))].join("\n");
  const pieces = cut(text).map((piece) => inline(piece, budget));
  return h("p", { dir: "auto" }, pieces.flat());
}

/** The lines from here on of which `belongs` is true. */
function taken(lines, at, belongs) {
  const first = at.line;
  while (at.line < lines.length && belongs(lines[at.line])) at.line += 1;
  return lines.slice(first, at.line);
}
