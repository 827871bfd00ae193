// What a judge said, as a table. Texts of the server enter it as text nodes.

import { h, letter, listed } from "./dom.js";

const percent = (share) => {
  const value = 100 * share;
  if (value > 99.9) return "> 99.9 %";
  if (value < 0.1) return "< 0.1 %";
  return `${value.toFixed(value > 99 || value < 1 ? 1 : 0)} %`;
};
const signed = (score) => `${score < 0 ? "−" : ""}${Math.abs(score).toFixed(3)}`;

/** The panel of one judge: its verdict in a sentence, then each response. */
export function panel(answer, hasSeveral) {
  const { judge } = answer;
  const title = hasSeveral ? h("h2", {}, judge.name) : h("h2", {}, "Scores");
  return h("section", { class: "panel", "aria-label": `Scores by ${judge.name}` },
    title,
    answer.results.length > 1 ? h("p", { class: "verdict" }, verdict(answer)) : null,
    h("div", { class: "scroll" }, table(answer)),
    notes(answer),
    h("p", { class: "hash", title: judge.sha256 }, `${judge.name} · weights ${judge.sha256.slice(0, 12)}…`));
}

/** Which response is the best, and how sure that is. */
export function verdict(answer) {
  const { best, ties, margin, probability } = answer;
  if (best === null) return "No response has a score.";
  if (ties.length > 1) return `${listed(ties.map(letter))} are tied.`;
  const lead = margin === null ? "" : `, ${signed(margin)} ahead`;
  const sure = probability === null ? "" : `: ${percent(probability)} likely to be the best`;
  return `${letter(best)} is the best${lead}${sure}.`;
}

function table(answer) {
  const hasProbability = answer.results.some((result) => typeof result.probability === "number");
  const names = [...new Set(answer.results.flatMap((result) => Object.keys(result.attributes ?? {})))];
  const heads = ["Response", "Score", ...(hasProbability ? ["Better than typical"] : []), ...names, "Tokens"];
  return h("table", { class: "scored" },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, answer.results.map((result, place) => row(answer, result, place, { hasProbability, names }))));
}

function row(answer, result, place, { hasProbability, names }) {
  const width = 2 + names.length + (hasProbability ? 1 : 0);
  if (result.error) {
    return h("tr", {}, h("td", {}, letter(place)), h("td", { class: "why", colspan: width }, `No score: ${result.error}.`));
  }
  const isBest = place === answer.best && answer.results.length > 1;
  const rank = answer.ranks[place];
  const chance = result.probability === null ? null : h("td", {}, percent(result.probability),
    h("meter", { class: "bar", min: 0, max: 1, value: result.probability, "aria-hidden": "true" }));
  return h("tr", { class: isBest ? "best" : null },
    h("td", {}, letter(place), answer.results.length > 1 ? h("span", { class: "hint" }, ` no. ${rank}`) : null,
      isBest && answer.ties.length < 2 ? [" ", h("span", { class: "badge good" }, "best")] : null),
    h("td", {}, signed(result.score)),
    hasProbability ? chance : null,
    names.map((name) => h("td", {}, signed(result.attributes[name]))),
    h("td", {}, String(result.tokens), result.truncated ? [" ", h("span", { class: "badge" }, "cut")] : null));
}

function notes(answer) {
  const cut = answer.results.flatMap((result, place) => (result.truncated ? [letter(place)] : []));
  return [
    cut.length > 0 ? h("p", { class: "hint" }, `${listed(cut)}: too long for the judge, so it read a part, as in training.`) : null,
    h("p", { class: "hint" }, "A score has no unit and no zero: compare it with that of another response to the same prompt."),
  ];
}
