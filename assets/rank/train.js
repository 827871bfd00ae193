// "Train now": the command, and on a click its output as it comes.

import { byId, show } from "./dom.js";

const EVERY = 700;

/** Shows the command; `session` asks, and `mayStart` says whether this server starts it. */
export async function offerTraining(session, mayStart) {
  const standing = await session.send("GET", "/api/train");
  byId("command").textContent = standing.command;
  byId("train-note").textContent = mayStart
    ? "This runs on the computer that serves this page. You can also type it yourself."
    : "Type this on the computer that serves this page.";
  for (const id of ["train-start", "train-stop"]) show(byId(id), false);
  if (!mayStart) return;
  byId("train-start").onclick = () => start(session);
  byId("train-stop").onclick = () => session.send("DELETE", "/api/train");
  show(byId("train-start"), standing.state !== "running");
  if (standing.state !== "idle") await follow(session);
}

async function start(session) {
  byId("train-output").textContent = "";
  show(byId("train-start"), false);
  try {
    await session.send("POST", "/api/train", { body: {} });
    await follow(session);
  } catch (error) {
    say(error.message);
    show(byId("train-start"), true);
  }
}

/** Adds what is printed until it ends. */
async function follow(session) {
  show(byId("train-output"), true);
  let next = 0;
  for (;;) {
    let standing;
    try {
      standing = await session.send("GET", `/api/train?from=${next}`);
    } catch (error) {
      return say(error.message);
    }
    next = standing.next;
    add(standing.output);
    show(byId("train-stop"), standing.state === "running");
    if (standing.state !== "running") return end(standing);
    say("Training…");
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

function end({ state }) {
  show(byId("train-start"), true);
  byId("train-start").textContent = "Train again";
  say(state === "done" ? "The judge is trained." : "The training ended before its end. What it printed last says why.");
}

function add(text) {
  const output = byId("train-output");
  const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  output.append(text);
  if (atEnd) output.scrollTop = output.scrollHeight;
}

function say(text) {
  byId("train-state").textContent = text;
}
