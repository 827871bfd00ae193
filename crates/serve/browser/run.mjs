// Runs the tests one after the other: `node run.mjs [NAME…]`. Each is a function of `pages.test.mjs`.

import { Browser, check, equal } from "../../rank/browser/lib.mjs";
import * as pages from "./pages.test.mjs";

const wanted = process.argv.slice(2);
const queue = Object.entries(pages).filter(([name]) => wanted.length === 0 || wanted.includes(name));
check(queue.length > 0, "no test has such a name");
let failed = 0;

for (const [name, test] of queue) {
  const browser = await Browser.launch();
  const began = Date.now();
  try {
    await test(browser);
    equal(browser.errors, [], "what the page complained of");
    console.log(`ok      ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.message}\n${error.stack.split("\n").filter((line) => line.includes(".test.mjs")).join("\n")}\n${browser.errors.join("\n")}`);
  } finally {
    await browser.chromium.close();
  }
}

console.log(failed === 0 ? "all well" : `${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
