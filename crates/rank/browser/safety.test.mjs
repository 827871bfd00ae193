// Nothing is lost and nothing doubled: reloads, tabs, offline browsers, and servers that die at any moment.

import { Server, after, check, equal, plain, prompt, ranks, standing, type, until, votes } from "./lib.mjs";

export async function reload(browser) {
  const { file, database } = plain(2);
  const server = await Server.start(file);
  const page = await browser.open(server);
  const before = await page.$$eval(".card .text", (all) => all.map((text) => text.textContent));
  await type(page, "3", "1");
  await page.reload();
  await page.waitForSelector("#task:not([hidden])");
  equal(await ranks(page), [3, 1, null], "a reload keeps the draft");
  equal(await page.$$eval(".card .text", (all) => all.map((text) => text.textContent)), before, "and the order");
  await type(page, "ArrowRight", "ArrowRight", "2", "Enter");
  await page.reload(); // maybe before the answer, maybe after
  await after(page, "Prompt 0");
  equal(standing(database).map((vote) => vote.ranks), [[3, 1, 2]], "one vote");
  await server.kill();
}

export async function tabs(browser) {
  const { file, database } = plain(3);
  const server = await Server.start(file);
  const one = await browser.open(server);
  const two = await one.context().newPage();
  browser.listen(two);
  await two.goto(server.page);
  await two.waitForSelector("#task:not([hidden])");
  equal(await prompt(two), await prompt(one), "a second tab shows the same task");
  await type(one, "1", "2", "3", "Enter");
  await after(one, "Prompt 0");
  await after(two, "Prompt 0");
  await type(two, "1", "1", "1");
  await type(one, "3", "2", "1");
  await Promise.all([one.keyboard.press("Enter"), two.keyboard.press("Enter")]);
  await after(one, "Prompt 1");
  await after(two, "Prompt 1");
  equal(votes(database).length, 2, "two tabs that submit at once store one vote");
  await server.kill();
}

export async function offline(browser) {
  const { file, database } = plain(2);
  const server = await Server.start(file);
  const page = await browser.open(server);
  await page.context().setOffline(true);
  await type(page, "1", "2", "3", "Enter");
  await page.waitForSelector("#notice:not([hidden])");
  check((await page.textContent("#notice")).includes("kept in this browser"), "it is said that the ranking waits");
  equal(votes(database).length, 0, "nothing came to the server");
  await page.context().setOffline(false);
  await after(page, "Prompt 0");
  await until(async () => !(await page.isVisible("#notice")), "the end of the notice");
  equal(standing(database).map((vote) => vote.ranks), [[1, 2, 3]], "it is sent when the network is back");
  await server.kill();
}

export async function closed(browser) {
  const { file, database } = plain(2);
  const server = await Server.start(file);
  const page = await browser.open(server);
  await server.kill("SIGKILL");
  await type(page, "1", "2", "3", "Enter");
  await page.waitForSelector("#notice:not([hidden])");
  await page.goto("about:blank"); // a closed window
  await server.run(server.port);
  await page.goto(server.page);
  await after(page, "Prompt 0");
  equal(standing(database).map((vote) => vote.ranks), [[1, 2, 3]], "a ranking outlives the window and the server");
  await server.kill();
}

export async function people(browser) {
  const { file, database } = plain(3);
  const server = await Server.start(file, ["--overlap", "2", "--people", "Ben,Zoë"]);
  const link = (name) => server.links.find((line) => line.startsWith(`${name}: `)).slice(name.length + 2);
  const ben = await browser.open(server, { name: null, link: link("Ben") });
  const zoe = await browser.open(server, { name: null, link: link("Zoë") });
  for (const page of [ben, zoe]) {
    await page.waitForSelector("#task:not([hidden])");
    check(!page.url().includes("token"), "the token is taken from the address");
    for (let i = 0; i < 3; i += 1) {
      const shown = await prompt(page);
      await type(page, "1", "2", "3", "Enter");
      await after(page, shown);
    }
    check(await page.isVisible("#done"), "each prompt comes once");
  }
  const stored = standing(database);
  equal([stored.length, new Set(stored.map((vote) => `${vote.item} ${vote.name}`)).size], [6, 6], "two rankings a prompt");
  equal(new Set(stored.map((vote) => vote.name)).size, 2, "of two people");
  const third = await browser.open(server, { name: null, link: server.page.replace(/token=.*/, "token=0123456789abcdef") });
  await third.waitForSelector("#welcome-problem:not([hidden])");
  check((await third.textContent("#welcome-problem")).includes("token is not right"), "a wrong token is refused");
  await server.kill();
}

/** The server dies 50 times, between the submit and the answer, at random moments. */
export async function crashes(browser) {
  const { file, database } = plain(50, 2);
  const server = await Server.start(file);
  const page = await browser.open(server);
  const chosen = new Map();
  let cut = 0, isAnswered = false;
  page.on("response", (response) => { isAnswered ||= response.url().endsWith("/api/votes") && response.ok(); });
  for (let i = 0; i < 50; i += 1) {
    const shown = await prompt(page);
    const rank = 1 + (i % 2);
    await type(page, String(rank), String(3 - rank));
    chosen.set(shown, [rank, 3 - rank]);
    isAnswered = false;
    await page.keyboard.down("Enter");
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 25));
    cut += isAnswered ? 0 : 1;
    await server.crash();
    await page.keyboard.up("Enter");
    await after(page, shown);
  }
  await page.waitForSelector("#done:not([hidden])");
  const stored = votes(database);
  equal([stored.length, new Set(stored.map((vote) => vote.item)).size], [50, 50], "each ranking is stored once");
  for (const [place, vote] of stored.entries()) equal(vote.ranks, chosen.get(`Prompt ${place}`), `the ranking of prompt ${place}`);
  equal(await page.evaluate(() => Object.keys(localStorage).filter((key) => /\/(ballot|refused)\//.test(key)).length), 0, "nothing waits");
  await server.kill();
  return `${cut} of 50 crashes came before the answer`;
}
