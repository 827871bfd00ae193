// Runs the tests: `node run.mjs [NAME…]`. Each is a function of the files below; several run at a time.

import { Browser, check, equal } from "./lib.mjs";
import * as looks from "./looks.test.mjs";
import * as ranking from "./ranking.test.mjs";
import * as results from "./results.test.mjs";
import * as safety from "./safety.test.mjs";

const AT_ONCE = 2;
const all = Object.entries({ ...safety, ...ranking, ...results, ...looks });
const wanted = process.argv.slice(2);
const queue = all.filter(([name]) => wanted.length === 0 || wanted.includes(name));
check(queue.length > 0, "no test has such a name");
const started = Date.now();
let failed = 0;

async function work() {
  for (let next = queue.shift(); next; next = queue.shift()) await run(...next);
}

async function run(name, test) {
  const browser = await Browser.launch();
  const began = Date.now();
  try {
    const note = await test(browser);
    equal(browser.errors, [], "what the page complained of");
    console.log(`ok      ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)${note ? `: ${note}` : ""}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.message}\n${error.stack.split("\n").filter((line) => line.includes(".test.mjs")).join("\n")}\n${browser.errors.join("\n")}`);
  } finally {
    await browser.chromium.close();
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, work));
console.log(`${failed === 0 ? "all well" : `${failed} failed`}, ${((Date.now() - started) / 1000).toFixed(0)} s`);
process.exit(failed === 0 ? 0 : 1);
