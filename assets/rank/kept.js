// What the browser keeps: who ranks here, drafts, and ballots that the server has not acknowledged.
//
// Everything is in localStorage, one entry a thing, so that two tabs never write over one another's. Where the browser
// keeps nothing (private windows, a full disk), the page works as long as it is open, and says so.

const PREFIX = "kudos-rank/";
const memory = new Map();
let works = true;

/** False once the browser refused to keep something. */
export const keeps = () => works;

/** The value of a key; null if there is none. */
export function read(key) {
  try {
    const text = memory.get(key) ?? localStorage.getItem(PREFIX + key);
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

/** Keeps a value. */
export function write(key, value) {
  const text = JSON.stringify(value);
  try {
    localStorage.setItem(PREFIX + key, text);
    memory.delete(key);
  } catch {
    works = false;
    memory.set(key, text);
  }
}

/** Forgets a key. */
export function forget(key) {
  memory.delete(key);
  try { localStorage.removeItem(PREFIX + key); } catch { works = false; }
}

/** All keys that begin with `start`. */
export function keys(start) {
  const kept = [];
  try {
    for (let i = 0; i < localStorage.length; i += 1) kept.push(localStorage.key(i));
  } catch { works = false; }
  const ours = kept.filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
  return [...new Set([...ours, ...memory.keys()])].filter((key) => key.startsWith(start));
}

/** Calls back when another tab changed a key that begins with `start`. */
export function watch(start, changed) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX + start)) changed(event.key.slice(PREFIX.length), event.newValue);
  });
}

/** The identifier of a new vote. `crypto.randomUUID` exists on secure origins only, and a team's server may be none. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
