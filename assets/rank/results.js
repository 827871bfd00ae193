// The results page: asks for the figures, writes the sections, opens disputed prompts.

import { Session } from "./api.js";
import { contentNodes } from "./cards.js";
import { byId, counted, fill, h, letter, show } from "./dom.js";
import * as figures from "./figures.js";
import * as kept from "./kept.js";
import { nodes } from "./text.js";
import { offerTraining } from "./train.js";

async function begin() {
  const who = kept.read("who") ?? {};
  const session = new Session(who.token ? { token: who.token, name: who.name } : {});
  byId("again").onclick = () => load(session);
  const granted = await session.open();
  await load(session);
  show(byId("train"), true);
  await offerTraining(session, granted.can_train);
}

async function load(session) {
  byId("again").disabled = true;
  try {
    const results = await session.send("GET", "/api/results", { timeout: 120_000 });
    byId("summary").textContent = summary(results);
    const open = (item) => openPrompt(session, item);
    fill(byId("sections"), figures.agreement(results), figures.review(results), figures.disputed(results, open), figures.bias(results),
      figures.people(results), figures.learning(results), h("section", {}, h("h2", {}, "How votes become labels"), h("p", {}, sentence(results.merging))));
    notice(null);
  } finally {
    byId("again").disabled = false;
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function summary({ items, ranked_items, complete, rankings, skips, withdrawn, overlap }) {
  const twice = overlap > 1 ? ` ${complete} have the ${overlap} rankings that each should have.` : "";
  return `${ranked_items} of ${counted(items, "prompt")} are ranked.${twice} ${counted(rankings, "ranking")}, ${counted(skips, "skip")}, ${withdrawn} taken back.`;
}

/** A prompt with its responses, and who ranked them how. */
async function openPrompt(session, item) {
  const { prompt, responses, rankings } = await session.send("GET", `/api/items/${item}`);
  const dialog = byId("prompt-dialog");
  const name = (ranking) => h("th", { scope: "row" }, h("bdi", {}, nodes(ranking.name)), ranking.repeat ? " (again)" : "");
  const row = (ranking) => h("tr", {}, name(ranking), ranking.ranks.map((rank) => h("td", {}, rank ?? "–")));
  const heads = [h("th", {}, h("span", { class: "unseen" }, "Person")), responses.map((_, i) => h("th", { scope: "col" }, letter(i)))];
  const remarks = rankings.filter((ranking) => ranking.comment).map((ranking) => h("p", { dir: "auto" }, h("b", {}, nodes(ranking.name), ": "), nodes(ranking.comment)));
  fill(dialog,
    h("h2", { id: "prompt-title" }, "Who ranked how"),
    h("div", { class: "asked" }, prompt === null ? null : contentNodes(prompt, false)),
    h("table", { class: "ranks-table" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rankings.map(row))),
    remarks,
    responses.map((content, i) => h("div", { class: "answered" }, h("h3", {}, `Response ${letter(i)}`), contentNodes(content, false))),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  dialog.showModal();
  dialog.scrollTop = 0;
}

function notice(text) {
  byId("notice").textContent = text ?? "";
  show(byId("notice"), text !== null);
}

begin().catch((error) => notice(error.status === 401 ? "This server asks for a token. Open the link that you were given first." : error.message));
