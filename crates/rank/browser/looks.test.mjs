// What people see: sizes, themes, a screen reader's view (axe), and hostile texts.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Server, check, data, equal, plain, ranks, type, until } from "./lib.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

async function audit(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  equal(found, [], `axe, ${what}`);
}

const MARKDOWN = "# Title\n\nA *b* **c** `d` [link](https://example.org/x)\n\n- one\n- two\n\n> quote\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |";

export async function accessible(browser) {
  const { file } = data([["A prompt", [MARKDOWN, "Short.", "word ".repeat(3000)]], ["Next", ["x", "y"]]]);
  const server = await Server.start(file, ["--attributes", "helpfulness"]);
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of [[1280, 800], [360, 740]]) {
      const what = `${colorScheme}, ${width} pixels`;
      const page = await browser.open(server, { name: null, colorScheme, width, height });
      await page.waitForSelector("#welcome:not([hidden])");
      await audit(page, `welcome, ${what}`);
      await page.fill("#name", `Person of ${what}`);
      await type(page, "Enter");
      await page.waitForSelector("#task:not([hidden]), #done:not([hidden])");
      await audit(page, `page, ${what}`);
      await type(page, "1", "1");
      await audit(page, `ranked, ${what}`);
      await type(page, "?");
      await audit(page, `help, ${what}`);
      await type(page, "Escape");
      await page.goto(new URL("/results", server.page).href);
      await page.waitForSelector("#sections > *");
      await audit(page, `results, ${what}`);
      await page.context().close();
    }
  }
  await server.kill();
}

export async function sizes(browser) {
  for (const [count, width, columns] of [[2, 360, 1], [4, 360, 1], [16, 360, 1], [4, 1280, 4], [4, 2560, 4], [16, 2560, 8], [5, 1280, 3]]) {
    const { file } = plain(1, count);
    const server = await Server.start(file);
    const page = await browser.open(server, { width, height: 800 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(wide <= 0, `${count} responses at ${width} pixels: the page is ${wide} pixels too wide`);
    const lefts = await page.$$eval(".card", (cards) => new Set(cards.map((card) => Math.round(card.getBoundingClientRect().left))).size);
    equal(lefts, columns, `columns of ${count} responses at ${width} pixels`);
    const { top } = await page.locator("#dock").boundingBox().then((box) => ({ top: box.y + box.height }));
    check(top <= 801, `the places are in view at ${width} pixels`);
    await page.context().close();
    await server.kill();
  }
}

const HOSTILE = [
  "<script>window.hit = 1</script><img src=x onerror='window.hit=1'><svg onload=window.hit=1>",
  "[click](javascript:window.hit=1) ![x](https://tracker.example/pixel.png) <a href='javascript:hit()'>a</a>",
  "\u202Eright to left\u202C \u001b[31mred\u001b[0m \u0000 \u200Bx\u2066y\u2069",
  `z${"\u0301".repeat(10_000)} after`,
  "**" + "[".repeat(20_000) + "](x) " + "*a ".repeat(20_000) + "`".repeat(9_999),
  "x".repeat(1_000_000),
];

export async function hostile(browser) {
  const { file } = data([["<img src=x onerror='window.hit=1'> **p**", HOSTILE], ["مرحبا", ["שלום", "hello\n\n- مرحبا"]]]);
  const server = await Server.start(file);
  const started = Date.now();
  const page = await browser.open(server);
  check(Date.now() - started < 6000, `hostile texts take ${Date.now() - started} ms`);
  equal(await page.evaluate(() => window.hit ?? null), null, "nothing was executed");
  equal(await page.$$eval(".text script, .text img, .text svg, .text a, .text iframe", (all) => all.length), 0, "no element came from a text");
  const texts = await page.$$eval(".card .text", (all) => all.map((text) => text.textContent));
  const has = (part) => texts.some((text) => text.includes(part));
  for (const part of ["<script>window.hit = 1</script>", "javascript:window.hit=1", "https://tracker.example/pixel.png", "U+202E", "U+001B", "U+0000", "U+200B", "U+2066", "9,994 marks"]) {
    check(has(part), `${part} is shown as it is`);
  }
  check(texts.some((text) => text.length === 1_000_000), "a text of 1 MB is there as a whole");
  const tall = await page.$$eval(".card", (cards) => Math.max(...cards.map((card) => card.getBoundingClientRect().height)));
  check(tall < 3000, `a long text scrolls in its frame: ${tall} pixels`);
  await page.getByRole("button", { name: "Show all 1,000,000 characters" }).click();
  await until(async () => (await page.$$eval(".card", (cards) => Math.max(...cards.map((card) => card.getBoundingClientRect().height)))) > 20_000, "all of the long text");
  await type(page, "t");
  equal(await page.evaluate(() => window.hit ?? null), null, "nothing is executed as plain text either");
  const quick = Date.now();
  await type(page, "1", "2");
  await until(async () => (await ranks(page)).filter((rank) => rank !== null).sort().join() === "1,2", "ranks beside long texts");
  check(Date.now() - quick < 2000, `keys take ${Date.now() - quick} ms beside 1 MB`);
  await type(page, "t", "s", "1");
  await until(async () => (await page.textContent("#prompt")) === "مرحبا", "the next task");
  const directions = await page.$$eval(".card .text p", (all) => all.map((p) => getComputedStyle(p).direction));
  equal(directions.includes("rtl") && directions.includes("ltr"), true, "each paragraph has its own direction");
  await server.kill();
}

export async function guarded(browser) {
  const { file } = plain(1);
  const server = await Server.start(file);
  const ask = (path, options) => fetch(new URL(path, server.page), options).then((response) => response.status);
  const json = { "content-type": "application/json" };
  const body = JSON.stringify({ name: "Mallory" });
  equal(await ask("/api/task"), 401, "no session");
  equal(await ask("/api/session", { method: "POST", headers: { ...json, origin: "http://evil.example" }, body }), 403, "another site");
  equal(await ask("/api/session", { method: "POST", headers: { "content-type": "text/plain" }, body }), 415, "a form of another site");
  equal(await ask("/api/session", { method: "POST", headers: json, body: `{"name":"${"x".repeat(300_000)}"}` }), 413, "a body that is too large");
  equal(await ask("/api/session", { method: "POST", headers: json, body: "{" }), 400, "no JSON");
  equal(await ask("/assets/..%2f..%2fCargo.toml"), 404, "no file of the disk");
  equal(await server.kill("SIGTERM"), 0, "SIGTERM ends it well");
}
