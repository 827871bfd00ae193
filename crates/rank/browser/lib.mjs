// What the tests share: a server of their own, a browser, a page, and checks that say what was found.

import { spawn, execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const KUDOS = process.env.KUDOS ?? new URL("../../../target/release/kudos", import.meta.url).pathname;
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** A condition that has to hold. */
export function check(holds, ...said) {
  if (!holds) throw new Error(said.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" "));
}

/** Two values that have to be the same. */
export function equal(found, expected, what) {
  check(JSON.stringify(found) === JSON.stringify(expected), `${what}: expected`, expected, "found", found);
}

/** Waits until `ask` gives something true. */
export async function until(ask, what, patience = 10_000) {
  const end = Date.now() + patience;
  for (;;) {
    const found = await ask();
    if (found) return found;
    check(Date.now() < end, `${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

/** A folder with a file of answers: `[[prompt, [responses]], …]`. */
export function data(groups, name = "answers.jsonl") {
  const folder = mkdtempSync(join(tmpdir(), "kudos-rank-"));
  const file = join(folder, name);
  writeFileSync(file, groups.map(([prompt, responses]) => JSON.stringify({ prompt, responses })).join("\n") + "\n");
  return { folder, file, database: join(folder, `${name.split(".")[0]}.rankings.db`) };
}

/** Some prompts with some responses each, whose texts say which they are. */
export function plain(prompts, responses = 3) {
  const text = (p, r) => `Response ${r} to prompt ${p}. It is so ${"very ".repeat(r)}good.`;
  return data(Array.from({ length: prompts }, (_, p) => [`Prompt ${p}`, Array.from({ length: responses }, (_, r) => text(p, r))]));
}

const running = new Set();
process.on("exit", () => { for (const child of running) child.kill("SIGKILL"); });

/** A running `kudos rank`. It does not outlive the tests. */
export class Server {
  static async start(file, words = [], port = 0) {
    const server = new Server();
    server.command = ["rank", file, "--no-open", "--repeats", "0", ...words];
    await server.run(port);
    return server;
  }

  async run(port) {
    this.child = spawn(KUDOS, [...this.command, "--port", String(port)], { stdio: ["ignore", "pipe", "pipe"] });
    running.add(this.child);
    let printed = "", errors = "";
    this.child.stdout.on("data", (bytes) => { printed += bytes; });
    this.child.stderr.on("data", (bytes) => { errors += bytes; });
    this.ended = new Promise((resolve) => this.child.once("exit", (code, signal) => { running.delete(this.child); resolve(code ?? signal); }));
    const named = this.command.indexOf("--people");
    const lines = named < 0 ? 1 : 1 + this.command[named + 1].split(",").length; // The page, and a link for each person.
    await until(() => printed.split("\n").length > lines || this.child.exitCode !== null, "the address");
    check(this.child.exitCode === null, errors);
    this.links = printed.trim().split("\n");
    this.page = this.links[0];
    this.port = Number(new URL(this.page).port);
  }

  async kill(signal = "SIGTERM") {
    this.child.kill(signal);
    return this.ended;
  }

  /** Ends at once, and starts again at the same port. */
  async crash() {
    await this.kill("SIGKILL");
    await this.run(this.port);
  }
}

const VOTES = `
import json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).cursor()
rows.row_factory = sqlite3.Row
found = rows.execute("""SELECT vote.vote, vote.ranks, vote.ratings, vote.flags, vote.comment, vote.skipped, task.shown, task.item,
    annotator.name, vote.seconds, EXISTS (SELECT 1 FROM withdrawal WHERE withdrawal.vote = vote.number) AS withdrawn
    FROM vote JOIN task USING (task) JOIN annotator USING (annotator) ORDER BY vote.number""")
print(json.dumps([dict(row) for row in found]))`;

/** All votes of a database, read by another program; ranks in the order shown. */
export function votes(database) {
  const rows = JSON.parse(execFileSync("python3", ["-c", VOTES, database], { encoding: "utf8" }));
  const parse = (text) => (text === null ? null : JSON.parse(text));
  return rows.map((row) => ({ ...row, ranks: parse(row.ranks), shown: parse(row.shown), ratings: parse(row.ratings), flags: parse(row.flags) }));
}

/** The votes that stand. */
export const standing = (database) => votes(database).filter((vote) => !vote.withdrawn);

/** The browser, and all that its pages complained of. */
export class Browser {
  static async launch() {
    const browser = new Browser();
    browser.errors = [];
    browser.chromium = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });
    return browser;
  }

  /** A page of a new person. */
  async open(server, { name = "Anna", link = server.page, width = 1280, height = 800, ...more } = {}) {
    const context = await this.chromium.newContext({ viewport: { width, height }, ...more });
    const page = await context.newPage();
    this.listen(page);
    await page.goto(link);
    if (name) {
      await page.fill("#name", name);
      await page.click("#welcome .primary");
      await page.waitForSelector("#task:not([hidden]), #done:not([hidden])");
    }
    return page;
  }

  listen(page) {
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("dialog", (dialog) => { this.errors.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("console", (message) => {
      const away = /net::ERR_|Failed to fetch|status of (401|409|404|400)/;
      if (message.type() === "error" && !away.test(message.text())) this.errors.push(message.text());
    });
    page.on("request", (request) => {
      if (!/^(http:\/\/(127\.0\.0\.1|localhost)|data:)/.test(request.url())) this.errors.push(`a request to ${request.url()}`);
    });
  }
}

/** The ranks on the page, by place; null for none. */
export const ranks = (page) => page.$$eval(".card", (cards) => cards.map((card) => {
  const pressed = card.querySelector('.ranks [aria-pressed="true"]');
  return pressed === null ? null : Number(pressed.textContent);
}));

/** The texts on the page, by place. */
export const texts = (page) => page.$$eval(".card .text", (all) => all.map((text) => text.textContent));

/** Which prompt the page shows. */
export const prompt = (page) => page.textContent("#prompt");

/** Types keys one after the other. */
export async function type(page, ...keys) {
  for (const key of keys) await page.keyboard.press(key);
}

/** Waits for the task after the one with this prompt, or the end. */
export async function after(page, before) {
  await until(async () => (await page.isVisible("#done")) || ((await page.isVisible("#task")) && (await prompt(page)) !== before), `a task after ${before}`);
}
