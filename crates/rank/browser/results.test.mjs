// The results page: figures of a database with several people, disputed prompts, and a training that runs.

import { existsSync } from "node:fs";
import { Server, after, check, equal, plain, prompt, type, until } from "./lib.mjs";

export async function results(browser) {
  const { file, folder } = plain(4, 3);
  const server = await Server.start(file, ["--overlap", "2"]);
  for (const [name, keys] of [["Anna", ["1", "2", "3"]], ["Ben <b>", ["3", "2", "1"]]]) {
    const page = await browser.open(server, { name });
    for (let i = 0; i < 4; i += 1) {
      const shown = await prompt(page);
      const order = await page.$$eval(".card .text", (all) => all.map((text) => text.textContent.match(/Response (\d)/)[1]));
      await type(page, ...order.map((response) => keys[Number(response)]), "Enter");
      await after(page, shown);
    }
    if (name !== "Anna") {
      await page.click("#done-results");
      await page.waitForSelector("#sections > *");
      const text = await page.textContent("main");
      for (const part of ["4 of 4 prompts are ranked", "Pairs agreed on", "0 %", "Disputed prompts", "Ben <b>", "kudos train"]) check(text.includes(part), part, "is not in", text);
      await page.click(".disputed a");
      await page.waitForSelector("#prompt-dialog[open]");
      check((await page.textContent("#prompt-dialog")).includes("Response 0 to prompt"), "a disputed prompt opens");
      await page.keyboard.press("Escape");
      await trains(page, folder);
    }
  }
  await server.kill();
}

/** The command is shown, and a click runs it; its output comes, whatever becomes of so little data. */
async function trains(page, folder) {
  const command = await page.textContent("#command");
  check(command.startsWith("kudos train ") && command.includes("answers-judge"), command);
  await page.click("#train-start");
  await until(async () => (await page.textContent("#train-output")).length > 0, "output of the training", 30_000);
  await until(async () => /is trained|before its end/.test(await page.textContent("#train-state")), "the end of the training", 60_000);
  const state = await page.textContent("#train-state");
  check(state.includes("is trained"), await page.textContent("#train-output"));
  equal(state.includes("is trained"), existsSync(`${folder}/answers-judge/model.safetensors`), state);
}
