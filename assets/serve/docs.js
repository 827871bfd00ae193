// The description of the API, made readable: each route with its fields and an example, from `/openapi.json`.

import { byId, fill, h, show } from "./dom.js";
import { description } from "./server.js";

async function begin() {
  const api = await description();
  const groups = api.tags.map((tag) => ({ tag, routes: routesOf(api, tag.name) }));
  fill(byId("docs"),
    h("h1", {}, api.info.title),
    paragraphs(api.info.description),
    h("nav", { "aria-label": "Contents" }, h("ul", {}, groups.map(({ tag }) => h("li", {}, h("a", { href: `#${anchor(tag.name)}` }, tag.name))))),
    groups.map(({ tag, routes }) => [
      h("h2", { id: anchor(tag.name) }, tag.name),
      paragraphs(tag.description),
      routes.map((route) => block(api, route)),
    ]));
}

const anchor = (name) => name.toLowerCase().replace(/[^a-z0-9]+/g, "-");
const paragraphs = (text = "") => text.split("\n\n").filter(Boolean).map((part) => h("p", {}, marked(part)));

/** A text in which `code` stands between back quotes. */
function marked(text) {
  return text.split("`").map((part, place) => (place % 2 === 1 ? h("code", {}, part) : part));
}

function routesOf(api, name) {
  const all = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, route]) => ({ path, method: method.toUpperCase(), ...route })));
  return all.filter((route) => route.tags.includes(name));
}

function block(api, route) {
  const body = route.requestBody?.content["application/json"];
  const answer = route.responses["200"]?.content?.["application/json"];
  const schema = body && resolved(api, body.schema);
  return h("details", {},
    h("summary", {}, h("span", { class: "method" }, route.method), h("span", { class: "path" }, route.path), h("span", { class: "aside" }, route.summary)),
    h("div", {},
      paragraphs(route.description),
      schema?.properties ? [h("h3", {}, "Request"), fields(api, schema)] : null,
      body?.example !== undefined ? [h("h3", {}, "Example"), h("pre", {}, curl(route, body.example))] : null,
      answer?.example !== undefined ? [h("h3", {}, "Answer"), h("pre", {}, compact(answer.example))] : null));
}

/** JSON with what is innermost on one line. */
function compact(value) {
  return JSON.stringify(value, null, 2).replace(/([[{])\s+([^[\]{}]*?)\s+([\]}])/g, (_, open, inner, end) => `${open}${inner.replace(/\n\s+/g, " ")}${end}`);
}

function resolved(api, schema) {
  const name = schema.$ref?.replace("#/components/schemas/", "");
  return name ? api.components.schemas[name] : schema;
}

function fields(api, schema) {
  const row = ([name, field]) => h("tr", {},
    h("th", { scope: "row" }, name),
    h("td", { class: "of" }, kind(api, field), schema.required?.includes(name) ? "" : ", optional"),
    h("td", {}, marked(field.description ?? resolved(api, field).description ?? "")));
  return h("table", { class: "fields" }, h("tbody", {}, Object.entries(schema.properties).map(row)));
}

function kind(api, field) {
  if (field.$ref) return resolved(api, field).title ?? field.$ref.split("/").at(-1);
  if (field.type === "array") return `list of ${kind(api, field.items ?? {})}`;
  return { string: "text", boolean: "true or false", integer: "whole number", number: "number", object: "object" }[field.type] ?? "value";
}

function curl(route, example) {
  const path = route.path.replace("{name}:predict", "judge:predict").replace("{name}", "judge");
  return `curl ${location.origin}${path} -H 'content-type: application/json' \\\n  -d '${JSON.stringify(example).replaceAll("'", "'\\''")}'`;
}

begin().catch((error) => {
  byId("notice").textContent = error.message;
  show(byId("notice"), true);
});
