// The view of several counters: their values, and their trends in one chart.

import { read } from "./api.js";
import { element, replace } from "./dom.js";
import { agoElement, number } from "./format.js";
import { emptyBox, errorBox } from "./messages.js";
import { poll } from "./polling.js";
import { counterUrl, isName, listUrl } from "./route.js";
import { MOST_LINES, trendPanel } from "./trend.js";

const PAUSE = 5_000; // milliseconds between two reads of the values

/** Return the view of the counters that the query names. */
export function compareView({ query, signal }) {
  const counterIds = [...new Set(query.getAll("id").filter(isName))].slice(0, MOST_LINES);
  const title = counterIds.length === 1 ? "1 counter" : `${counterIds.length} counters`;
  const heading = element("h1", {}, title);
  if (counterIds.length === 0) {
    return { title, node: element("section", {}, heading, emptyBox(
      element("p", {}, "Choose counters in ", element("a", { href: listUrl() }, "the list"), "."))) };
  }
  const items = counterIds.map(newItem);
  const values = element("ul", { class: "values" }, ...items.map((item) => item.node));
  const trend = trendPanel(counterIds, query, signal);
  let versions = "";
  poll(async () => {
    const { body } = await read("counters", { query: { id: counterIds }, signal });
    const now = body.map((counter) => counter.version).join();
    body.forEach((counter, index) => items[index].update(counter));
    if (versions && now !== versions) trend.refresh();
    versions = now;
    return PAUSE;
  }, signal, (error) => replace(values, element("li", {}, errorBox(error, () => location.reload()))));
  const crumbs = element("p", { class: "crumbs" },
    element("a", { href: listUrl() }, "All counters"));
  return { title, node: element("section", {}, crumbs, heading, values, trend.node) };
}

function newItem(counterId, index) {
  const value = element("strong", {}, "…");
  const changed = element("span");
  const node = element("li", {},
    element("a", { href: counterUrl(counterId), class: `key key--line-${index + 1}` }, counterId),
    value, changed);
  const update = (counter) => {
    value.textContent = number(counter.value);
    replace(changed, agoElement(counter.updated_at));
  };
  return { node, update };
}
