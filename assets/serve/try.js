// The page at `/`: a prompt, some responses, and what the judges say of them.

import { announce, byId, counted, fill, h, letter, show } from "./dom.js";
import { panel, verdict } from "./results.js";
import { Refused, best, judges, useKey } from "./server.js";

const MOST = 16;
let known = [];
/** The number of the latest question: an answer to an earlier one is not shown. */
let latest = 0;

async function begin() {
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    useKey(byId("key").value.trim());
    enter(true);
  };
  byId("ask").onsubmit = (event) => {
    event.preventDefault();
    ask();
  };
  byId("add").onclick = () => add().focus();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("ask").hidden) {
      event.preventDefault();
      byId("ask").requestSubmit();
    }
  });
  add();
  add();
  await enter(false);
}

/** Asks for the judges; a server with a key says so by refusing. */
async function enter(hasTyped) {
  try {
    known = await judges();
  } catch (error) {
    if (error.status !== 401) return retry(error);
    return askForKey(hasTyped);
  }
  notice(null);
  if (known.length === 0) return retry(new Refused(503, "the judges are being loaded"));
  show(byId("key-form"), false);
  show(byId("ask"), true);
  byId("serving").textContent = known.length === 1 ? known[0].id : counted(known.length, "judge");
  offer();
  byId("prompt").focus();
}

function retry(error) {
  notice(`${error.message} Trying again…`);
  setTimeout(() => enter(false), 2000);
}

function askForKey(hasTyped) {
  useKey(null);
  show(byId("ask"), false);
  show(byId("key-form"), true);
  byId("key-problem").textContent = hasTyped ? "The server does not know this key." : "";
  show(byId("key-problem"), hasTyped);
  byId("key").focus();
}

function notice(text) {
  byId("notice").textContent = text ?? "";
  show(byId("notice"), text !== null);
}

/** The choice of judges, where there are several. */
function offer() {
  const box = ({ id, max_model_len: tokens }, place) => h("label", {},
    h("input", { type: "checkbox", name: "judge", value: id, checked: place === 0 }),
    h("span", {}, id, h("span", { class: "hint" }, ` reads ${tokens} tokens`)));
  fill(byId("judge-list"), known.map(box));
  show(byId("judges"), known.length > 1);
}

/** A further response; its text area. */
function add() {
  const area = h("textarea", { rows: 3, class: "text" });
  const head = h("label", {});
  const remove = h("button", { type: "button", class: "quiet", onclick: () => drop(block) }, "Remove");
  const block = h("div", { class: "response" }, h("div", { class: "head" }, head, remove), area);
  byId("responses").append(block);
  rename();
  return area;
}

function drop(block) {
  const next = block.nextElementSibling ?? block.previousElementSibling;
  block.remove();
  rename();
  next.querySelector("textarea").focus();
}

/** Gives each response its letter. */
function rename() {
  const blocks = [...byId("responses").children];
  blocks.forEach((block, place) => {
    const [label, button, area] = ["label", "button", "textarea"].map((name) => block.querySelector(name));
    area.id = `response-${place}`;
    label.htmlFor = area.id;
    label.textContent = `Response ${letter(place)}`;
    button.setAttribute("aria-label", `Remove response ${letter(place)}`);
    show(button, blocks.length > 1);
  });
  show(byId("add"), blocks.length < MOST);
}

/** What is asked: the texts, and the judges that were chosen. */
function question() {
  const prompt = byId("prompt").value;
  const responses = [...byId("responses").querySelectorAll("textarea")].map((area) => area.value);
  const chosen = [...byId("judge-list").querySelectorAll("input:checked")].map((box) => box.value);
  return { prompt: prompt === "" ? null : prompt, responses, chosen };
}

async function ask() {
  const { prompt, responses, chosen } = question();
  if (chosen.length === 0) return notice("Choose a judge.");
  const number = ++latest;
  notice(null);
  byId("score").setAttribute("aria-disabled", "true");
  const asked = chosen.map((judge) => best({ judge, prompt, responses }));
  const answers = await Promise.allSettled(asked);
  if (number !== latest) return;
  byId("score").removeAttribute("aria-disabled");
  say(answers, chosen);
}

function say(answers, chosen) {
  const refused = answers.find(({ reason }) => reason?.status === 401);
  if (refused) return askForKey(true);
  const panels = answers.map(({ value, reason }, place) => (value
    ? panel(value, known.length > 1)
    : h("section", { class: "panel" }, h("h2", {}, chosen[place]), h("p", { class: "problem" }, reason.message))));
  fill(byId("results"), panels);
  byId("results").scrollIntoView({ block: "nearest" });
  announce(answers.map(({ value, reason }) => (value ? `${value.judge.name}: ${verdict(value)}` : reason.message)).join(" "));
}

begin().catch((error) => notice(error.message));
