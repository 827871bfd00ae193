// Requests to the server. The key is kept in this module's memory alone: not in the address, a cookie or a store.

const TIMEOUT = 60_000;
let key = null;

/** Keeps a key for the requests to come; `null` forgets it. */
export function useKey(given) {
  key = given;
}

/** The server said no: `status` is its HTTP status. */
export class Refused extends Error {
  constructor(status, message) {
    super(`${message.charAt(0).toUpperCase()}${message.slice(1)}.`.replace(/\.\.$/, "."));
    this.status = status;
  }
}

async function request(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key !== null) headers.authorization = `Bearer ${key}`;
  const options = { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" };
  let response, answer;
  try {
    response = await fetch(path, { ...options, redirect: "error", signal: AbortSignal.timeout(TIMEOUT) });
    answer = await response.json();
  } catch {
    throw new Refused(0, "the server does not answer");
  }
  if (!response.ok) throw new Refused(response.status, sentence(answer) ?? `the server answered ${response.status}`);
  return answer;
}

/** The sentence of an error, in any of the forms that the server speaks. */
function sentence(answer) {
  const error = answer?.error;
  return typeof error === "string" ? error : error?.message;
}

/** The judges: `[{id, sha256, max_model_len}]`. */
export const judges = async () => (await request("GET", "/v1/models")).data;

/** The best of several responses, as a judge sees it. */
export const best = (question) => request("POST", "/v1/best", question);

/** The description of the API, which needs no key. */
export const description = () => request("GET", "/openapi.json");
