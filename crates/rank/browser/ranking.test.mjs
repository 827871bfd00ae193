// A person ranks: by keys, by drag, by buttons; ties, partial rankings, undo, skips, ratings, flags, comments.

import { Server, after, check, equal, plain, prompt, ranks, standing, type, until, votes } from "./lib.mjs";

export async function keys(browser) {
  const { file, database } = plain(3);
  const server = await Server.start(file);
  const page = await browser.open(server);
  equal(await ranks(page), [null, null, null], "nothing is chosen at first");
  await type(page, "Enter");
  equal(standing(database).length, 0, "nothing is submitted before a choice");
  const first = await prompt(page);
  await type(page, "2", "1", "3");
  equal(await ranks(page), [2, 1, 3], "digits rank one after the other");
  await type(page, "ArrowLeft", "3");
  equal(await ranks(page), [2, 3, 3], "an arrow goes back, and the same digit is a tie");
  await type(page, "Enter");
  await after(page, first);
  equal(standing(database).map((vote) => vote.ranks), [[1, 2, 2]], "ranks are stored without gaps");
  await type(page, "1", "Enter");
  check((await page.textContent("#state")).includes("Cannot tell the rest"), "a partial ranking is asked about");
  await type(page, "c", "Enter");
  await after(page, await prompt(page).then(() => "Prompt 1"));
  equal(standing(database)[1].ranks, [1, null, null], "a partial ranking");
  await type(page, "1", "1");
  equal(await ranks(page), [1, 1, null], "a tie by the same digit");
  await type(page, "u", "u", "u");
  await until(async () => (await prompt(page)) === "Prompt 1", "the withdrawn task");
  equal(await ranks(page), [1, null, null], "undo after the submit shows the ballot again");
  equal(standing(database).length, 1, "the ballot is withdrawn");
  await type(page, "ArrowRight", "1", "2");
  await page.waitForFunction(() => document.querySelector("#submit").getAttribute("aria-disabled") === "false");
  await type(page, "Enter");
  await after(page, "Prompt 1");
  const all = votes(database);
  equal([all.length, all.filter((vote) => vote.withdrawn).length], [3, 1], "nothing is deleted");
  await type(page, "s", "2");
  await page.waitForSelector("#done:not([hidden])");
  equal(standing(database)[2].skipped, "cannot judge", "a skip has its reason");
  equal(await server.kill(), 0, "the server ends well");
}

export async function buttons(browser) {
  const { file, database } = plain(2, 4);
  const server = await Server.start(file, ["--attributes", "helpfulness,correctness"]);
  const page = await browser.open(server);
  const press = (name) => page.getByRole("button", { name, exact: true }).click();
  await press("Response A: rank 2");
  await press("Response B: rank 1");
  await press("Response C: rank 2");
  await press("Response D: rank 4");
  equal(await ranks(page), [2, 1, 2, 4], "buttons rank");
  await press("Response D: rank 4");
  equal(await ranks(page), [2, 1, 2, null], "the same button takes the rank away");
  await press("Response B, helpfulness: 5 of 5");
  await press("Response A, correctness: 2 of 5");
  await press("Response A: flag as unsafe");
  await page.click("#remark summary");
  await page.fill("#comment", "A remark of 2 words, 3 u");
  equal(await ranks(page), [2, 1, 2, null], "keys of a comment rank nothing");
  await page.click("#rest");
  await page.click("#submit");
  await after(page, "Prompt 0");
  const [vote] = standing(database);
  equal([vote.ranks, vote.comment], [[2, 1, 2, null], "A remark of 2 words, 3 u"], "the vote");
  equal(vote.ratings, { correctness: [2, null, null, null], helpfulness: [null, 5, null, null] }, "ratings");
  equal(vote.flags, [["unsafe"], [], [], []], "flags");
  check(vote.seconds >= 0 && vote.seconds < 60, "seconds", vote.seconds);
  await page.click("#undo");
  await until(async () => (await prompt(page)) === "Prompt 0", "the withdrawn task");
  equal(await page.inputValue("#comment"), "A remark of 2 words, 3 u", "the comment comes back");
  equal(await page.getAttribute('[aria-label="Response A: flag as unsafe"]', "aria-pressed"), "true", "the flag comes back");
  await server.kill();
}

async function drag(page, from, to, where = 0.5) {
  const [a, b] = [await page.locator(from).boundingBox(), await page.locator(to).boundingBox()];
  await page.mouse.move(a.x + a.width / 2, a.y + a.height / 2);
  await page.mouse.down();
  await page.mouse.move(a.x + a.width / 2 + 20, a.y + 20, { steps: 3 });
  await page.mouse.move(b.x + b.width * where, b.y + b.height / 2, { steps: 6 });
  await page.mouse.up();
}

export async function dragging(browser) {
  const { file, database } = plain(1, 4);
  const server = await Server.start(file);
  const page = await browser.open(server);
  const handle = (place) => `.card[data-place="${place}"] .handle`;
  const slot = (rank) => `.slot[data-rank="${rank}"]`;
  await drag(page, handle(0), slot(1));
  await drag(page, handle(1), slot(1));
  equal(await ranks(page), [1, 1, null, null], "onto a place is a tie");
  await drag(page, handle(2), slot(1), 0.05);
  equal(await ranks(page), [2, 2, 1, null], "before a place is before it");
  await drag(page, `.chip[data-place="1"]`, slot(4));
  equal(await ranks(page), [2, 4, 1, null], "letters move between places");
  await drag(page, handle(3), slot(2), 0.97);
  equal(await ranks(page), [2, 4, 1, 3], "behind a place is behind it");
  await drag(page, handle(3), "#prompt-title");
  equal(await ranks(page), [2, 4, 1, 3], "outside of the places nothing happens");
  await drag(page, `.chip[data-place="1"]`, ".tray");
  equal(await ranks(page), [2, null, 1, 3], "the tray takes the rank away");
  await page.mouse.wheel(0, 500);
  await page.mouse.wheel(0, -500);
  equal(await ranks(page), [2, null, 1, 3], "scrolling ranks nothing");
  await type(page, "u");
  await page.click("#submit");
  await page.waitForSelector("#done:not([hidden])");
  equal(standing(database)[0].ranks, [2, 4, 1, 3], "the vote");
  await server.kill();
}

export async function touch(browser) {
  const { file } = plain(1, 3);
  const server = await Server.start(file);
  const page = await browser.open(server, { width: 360, height: 740, hasTouch: true, isMobile: true });
  const wire = await page.context().newCDPSession(page);
  const finger = (type, x, y) => wire.send("Input.dispatchTouchEvent", { type, touchPoints: type === "touchEnd" ? [] : [{ x, y }] });
  const swipe = async (from, to) => {
    await finger("touchStart", ...from);
    for (let i = 1; i <= 8; i += 1) {
      await finger("touchMove", from[0] + ((to[0] - from[0]) * i) / 8, from[1] + ((to[1] - from[1]) * i) / 8);
      await page.waitForTimeout(25);
    }
    await page.waitForTimeout(200); // a finger that is lifted in motion is a fling, and the tap after it ends that
    await finger("touchEnd");
  };
  const middle = async (selector) => {
    const box = await page.locator(selector).boundingBox();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  await swipe(await middle('.card[data-place="0"] .text'), [180, 80]);
  await until(() => page.evaluate(() => scrollY > 20), "a swipe scrolls");
  equal(await ranks(page), [null, null, null], "a swipe over texts ranks nothing");
  await page.waitForTimeout(600); // the swipe runs out
  await page.evaluate(() => scrollTo(0, 0));
  await page.waitForTimeout(200);
  await swipe(await middle('.card[data-place="0"] .handle'), await middle('.slot[data-rank="1"]'));
  equal(await ranks(page), [1, null, null], "a finger drags by the handle");
  check(await page.evaluate(() => scrollY < 20), "a drag does not scroll");
  await page.tap('[aria-label="Response B: rank 1"]');
  await until(async () => (await ranks(page))[1] === 1, "a finger presses buttons");
  await server.kill();
}

export async function sixteen(browser) {
  const { file, database } = plain(1, 16);
  const server = await Server.start(file);
  const page = await browser.open(server);
  await type(page, "1", "6", "2");
  equal((await ranks(page)).slice(0, 2), [16, 2], "two digits in a row are one rank, and one is one");
  await type(page, "c", "Enter");
  await page.waitForSelector("#done:not([hidden])");
  equal(standing(database)[0].ranks.slice(0, 3), [2, 1, null], "the vote");
  await server.kill();
}

export async function review(browser) {
  const { folder } = plain(1);
  const { writeFileSync } = await import("node:fs");
  const pairs = [["p0", "good", "bad"], ["p1", "right", "wrong"]].map(([prompt, chosen, rejected]) => JSON.stringify({ prompt, chosen, rejected }));
  writeFileSync(`${folder}/suspects.jsonl`, pairs.join("\n"));
  const server = await Server.start(`${folder}/suspects.jsonl`);
  const page = await browser.open(server);
  check(!(await page.content()).includes("The file says"), "no label before the choice");
  const isFirst = async (word) => (await page.textContent(".card .text")).trim() === word;
  await type(page, ...((await isFirst("good")) ? ["1", "2"] : ["2", "1"]), "Enter");
  await page.waitForSelector("#reveal-dialog[open]");
  check((await page.textContent("#reveal-dialog")).includes("the label stands"), await page.textContent("#reveal-dialog"));
  await type(page, "Enter");
  await after(page, "p0");
  await type(page, ...((await isFirst("wrong")) ? ["1", "2"] : ["2", "1"]), "Enter");
  await page.waitForSelector("#reveal-dialog[open]");
  check((await page.textContent("#reveal-dialog")).includes("does not stand"), await page.textContent("#reveal-dialog"));
  await type(page, "u");
  await until(async () => (await prompt(page)) === "p1" && (await page.isVisible("#task")), "the task again");
  await server.kill();
}
