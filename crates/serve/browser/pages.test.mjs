// The page at `/` and the description at `/docs`, as people meet them.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KUDOS, check, equal, until } from "../../rank/browser/lib.mjs";

const parts = createRequire(new URL("../../rank/browser/lib.mjs", import.meta.url));
const AXE = readFileSync(parts.resolve("axe-core/axe.min.js"), "utf8");
const KEY = "the-key-of-the-browser-test";
const PROMPT = "Why is the sky blue?";
const GOOD = "Air scatters blue light more than red light, so it comes from all over the sky.";
const LONG = `Because ${"it is a long and tedious story about light, ".repeat(200)}`;

const running = new Set();
process.on("exit", () => { for (const child of running) child.kill("SIGKILL"); });

/** A running `kudos serve` with the judge in the box; it does not outlive the tests. */
async function serve(...words) {
  const child = spawn(KUDOS, ["serve", "--port", "0", "--log", "off", ...words], { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  let printed = "";
  child.stdout.on("data", (bytes) => { printed += bytes; });
  await until(() => printed.includes("\n") || child.exitCode !== null, "the address");
  const page = /http:\/\/[^ ]+(?=:)/.exec(printed)[0];
  const ended = new Promise((resolve) => child.once("exit", (code) => { running.delete(child); resolve(code); }));
  return { page, stop: async () => { child.kill("SIGTERM"); equal(await ended, 0, "the server's status"); } };
}

function withKey() {
  const file = join(mkdtempSync(join(tmpdir(), "kudos-serve-")), "key");
  writeFileSync(file, `${KEY}\n`);
  return ["--api-key-file", file];
}

const open = (browser, server, more = {}) => browser.open({ page: server.page }, { name: null, ...more });

async function audit(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  equal(found, [], `axe, ${what}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `${what}: the page is ${wide} pixels too wide`);
  if (process.env.LOOK) await page.screenshot({ path: join(process.env.LOOK, `${what.replace(/[^a-z0-9]+/gi, "-")}.png`), fullPage: true });
}

async function fillIn(page, ...responses) {
  await page.waitForSelector("#ask:not([hidden])");
  await page.fill("#prompt", PROMPT);
  for (const [place, text] of responses.entries()) {
    if (place > 1) await page.click("#add");
    await page.fill(`#response-${place}`, text);
  }
}

const rows = (page) => page.$$eval(".scored tbody tr", (all) => all.map((row) => row.innerText.replace(/\s+/g, " ")));

export async function scores(browser) {
  const server = await serve();
  const page = await open(browser, server);
  await fillIn(page, "It is painted.", GOOD, LONG);
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector(".scored");
  const found = await rows(page);
  equal(found.length, 3, "rows");
  check(/ cut$/.test(found[2]) && !/ cut$/.test(found[0]), "the long response is marked as cut", found);
  const said = await page.textContent(".verdict");
  check(/^[ABC] is the best, \d+\.\d{3} ahead: /.test(said), "the verdict is", said);
  equal(await page.$$eval(".badge.good", (all) => all.length), 1, "best ones");
  const shown = await page.textContent("tbody tr:nth-child(2) td:nth-child(2)");
  const asked = await page.evaluate(async ([prompt, response]) => {
    const answer = await fetch("/v1/score", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ prompt, responses: [response] }) });
    return (await answer.json()).results[0].score;
  }, [PROMPT, GOOD]);
  equal(shown, `${asked < 0 ? "−" : ""}${Math.abs(asked).toFixed(3)}`, "the score on the page");
  await page.click(".response:nth-child(3) button");
  equal(await page.$$eval(".response label", (all) => all.map((label) => label.textContent)), ["Response A", "Response B"], "what is left");
  await page.fill("#response-1", await page.inputValue("#response-0"));
  await page.click("#score");
  await until(async () => (await rows(page)).length === 2, "the second answer");
  equal(await page.textContent(".verdict"), "A and B are tied.", "equal responses");
  await server.stop();
}

export async function looks(browser) {
  const server = await serve("--judge", "helpful=kudos-judge", "--judge", "second=kudos-judge", ...withKey());
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of [[1280, 800], [400, 740]]) {
      const what = `${colorScheme}, ${width} pixels`;
      const page = await open(browser, server, { colorScheme, width, height });
      await page.waitForSelector("#key-form:not([hidden])");
      await audit(page, `key, ${what}`);
      await page.fill("#key", "another-key-than-that-one");
      await page.keyboard.press("Enter");
      await page.waitForSelector("#key-problem:not([hidden])");
      await page.fill("#key", KEY);
      await page.keyboard.press("Enter");
      await fillIn(page, "It is painted.", GOOD, LONG, "");
      await page.check("#judge-list label:nth-child(2) input");
      await page.click("#score");
      await until(async () => (await rows(page)).length === 8, "the answers of both judges");
      await audit(page, `scores, ${what}`);
      const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href]);
      equal(kept, [0, 0, "", `${server.page}/`], "what the browser keeps");
      await page.goto(`${server.page}/docs`);
      await page.waitForSelector("details");
      await page.evaluate(() => { for (const one of [...document.querySelectorAll("details")].slice(0, 3)) one.open = true; });
      await audit(page, `docs, ${what}`);
      await page.context().close();
    }
  }
  await server.stop();
}

export async function keyboard(browser) {
  const server = await serve();
  const page = await open(browser, server);
  await page.waitForSelector("#ask:not([hidden])");
  equal(await page.evaluate(() => document.activeElement.id), "prompt", "where typing begins");
  await page.keyboard.type(PROMPT);
  for (const text of ["It is painted.", GOOD]) {
    await until(async () => {
      await page.keyboard.press("Tab");
      return page.evaluate(() => document.activeElement.id.startsWith("response-") && document.activeElement.value === "");
    }, "the next response");
    await page.keyboard.type(text);
  }
  await until(async () => {
    await page.keyboard.press("Tab");
    return page.evaluate(() => document.activeElement.id === "score");
  }, "the button");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".scored");
  check((await page.textContent("#announcer")).length > 0 || await until(() => page.textContent("#announcer"), "what is announced"));
  await server.stop();
}

export async function hostile(browser) {
  const server = await serve();
  const page = await open(browser, server);
  const script = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  await fillIn(page, script, "\u202e\u0000 <b>");
  await page.click("#score");
  await page.waitForSelector(".scored");
  equal(await page.$$eval("#results img, #results script, #results b", (all) => all.length), 0, "elements made of texts");
  const answer = await page.evaluate(async () => {
    const response = await fetch("/");
    return [response.headers.get("content-security-policy"), response.headers.get("x-content-type-options")];
  });
  check(/default-src 'none'/.test(answer[0]) && /trusted-types 'none'/.test(answer[0]), "the policy is", answer[0]);
  equal(answer[1], "nosniff", "the type is not guessed");
  await server.stop();
}
