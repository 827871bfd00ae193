// The sections of the results page: each says what its figures mean, in a sentence.

import { bars, curve, interval } from "./charts.js";
import { counted, h, letter } from "./dom.js";
import { nodes } from "./text.js";

const SHOWN = 8; // disputed prompts before one asks for more

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const two = (value) => value.toFixed(2);

function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), children);
}

function figure(name, estimate, { low, high, mark, write, about }) {
  const chart = estimate ? interval(estimate, low, high, mark) : null;
  const range = estimate?.ci95 ? ` (${write(estimate.ci95[0])} to ${write(estimate.ci95[1])})` : "";
  const value = estimate ? [h("b", {}, write(estimate.value)), h("span", { class: "ci" }, range)] : h("span", { class: "ci" }, "not yet known");
  return h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value), h("dd", {}, chart), h("dd", { class: "about" }, about));
}

/** How far people agree. */
export function agreement({ agreement, overlapping }) {
  if (overlapping === 0) {
    return section("Agreement", h("p", { class: "hint" }, "No prompt was ranked by two people yet. Start with --overlap 2 to measure agreement."));
  }
  const share = { low: 0, high: 1, write: percent };
  return section("Agreement", h("p", { class: "hint" }, `From ${counted(overlapping, "prompt")} that at least two people ranked. In brackets: where 95 of 100 repetitions would lie.`),
    h("dl", { class: "figures" },
      figure("Pairs agreed on", agreement.pairwise, { ...share, mark: 0.5, about: "Of two responses, two people prefer the same one. By chance: 50 %." }),
      figure("Krippendorff’s alpha", agreement.alpha, { low: -0.2, high: 1, mark: 0, write: two, about: "Ordinal. 1 is full agreement, 0 is chance; many fields ask for 0.67." }),
      figure("Kendall’s W", agreement.kendall_w, { low: 0, high: 1, mark: 0, write: two, about: "1: all give the same order. 0: no order in common." })));
}

/** What may have steered people. */
export function bias({ bias }) {
  const share = { low: 0, high: 1, mark: 0.5, write: percent };
  const places = bias.best_at.map(([found, chance], i) => `${letter(i)}: ${percent(found)} (chance ${percent(chance)})`).join(", ");
  const best = bias.best_at.length > 0
    ? h("div", { class: "figure" }, h("dt", {}, "Where the best stood"), h("dd", {}, places), h("dd", {}, bars(bias.best_at)), h("dd", { class: "about" }, "Bars near their lines: the place does not matter."))
    : null;
  return section("What may have steered people",
    h("dl", { class: "figures" },
      figure("The earlier one preferred", bias.earlier, { ...share, about: "50 % without a bias, since the order is shuffled for each person." }),
      figure("The longer one preferred", bias.longer, { ...share, about: "Longer can be better. Far from 50 %, look whether it is." }),
      best));
}

/** Everybody, and how long a ranking takes. */
export function people({ people, seconds }) {
  const cell = (value) => h("td", {}, value);
  const dash = "–";
  const row = (person) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, nodes(person.name))), cell(person.rankings), cell(person.skips),
    cell(person.seconds === null ? dash : `${Math.round(person.seconds)} s`),
    cell(person.consistency ? percent(person.consistency.value) : dash), cell(person.agreement === null ? dash : percent(person.agreement)),
    cell(person.reliability === null ? dash : two(person.reliability)));
  const heads = ["Person", "Rankings", "Skips", "Time a ranking", "Agrees with themselves", "Agrees with others", "Reliability"];
  const time = seconds ? h("p", {}, `Half of the rankings took between ${Math.round(seconds[0])} and ${Math.round(seconds[2])} seconds; the middle one took ${Math.round(seconds[1])}.`) : null;
  return section("People and time", time, h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "People" },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, people.map(row)))));
}

/** What people disagree on; a link opens each. */
export function disputed({ disputed }, open) {
  if (disputed.length === 0) return null;
  const point = ({ item, prompt, agreement, people }) => h("li", {},
    h("a", { href: `#prompt-${item}`, dir: "auto", onclick: (event) => { event.preventDefault(); open(item); } }, nodes(prompt.trim() || "(an empty prompt)")),
    h("span", { class: "ci" }, ` ${people} people agree on ${percent(agreement)} of the pairs`));
  const further = disputed.length > SHOWN
    ? h("details", {}, h("summary", {}, `${disputed.length - SHOWN} more`), h("ol", { class: "disputed", start: SHOWN + 1 }, disputed.slice(SHOWN).map(point)))
    : null;
  return section("Disputed prompts", h("p", { class: "hint" }, "The most disputed first. To collect more rankings for these, start with --next disputed."),
    h("ol", { class: "disputed" }, disputed.slice(0, SHOWN).map(point)), further);
}

/** Whether the labels of the data stand. */
export function review({ review }) {
  if (review === null) return null;
  const { items, stand, turned, open } = review;
  return section("Labels under review", h("p", {}, `Of ${counted(items, "prompt")} that the file had judged: ${stand} stand, ${turned} are turned round, ${open} stay open.`),
    h("dl", { class: "figures" }, figure("Agreement with the file", review.agreement, { low: 0, high: 1, mark: 0.5, write: percent, about: "Of the preferences in the file, people share these." })));
}

/** How well what was ranked foretells what comes. */
export function learning({ curve: found }) {
  if (!found || found.points.length < 2) return null;
  const [count, share] = found.points.at(-1);
  const more = found.more_for_a_point;
  const words = more === null ? "The curve shows no clear rise any more." : `About ${counted(more, "more ranking")} for one more of 100.`;
  return section("What further rankings bring", h("p", {}, `After ${counted(count, "ranking")}, ${percent(share)} of the latest preferences were foretold. ${words}`), h("div", { class: "curve-box" }, curve(found.points)),
    h("p", { class: "about" }, `From the first to the ${count}th ranking; dashed: 50 %, which is chance.`));
}
