// The view of one counter: its value, live, and everything that is known about it.

import { counterPath, read } from "./api.js";
import { changePanel } from "./change.js";
import { element, replace } from "./dom.js";
import { number, signed, timeElement } from "./format.js";
import { historyPanel } from "./history.js";
import { emptyBox, errorBox } from "./messages.js";
import { momentPanel } from "./moment.js";
import { poll } from "./polling.js";
import { isName, listUrl } from "./route.js";
import { trendPanel } from "./trend.js";

const FAST = 2_000; // milliseconds between two reads after a change
const SLOW = 10_000; // the longest pause, if the counter does not change
const SLOWER = 1.25; // how much longer each pause is

/** Return the view of a counter. */
export function counterView({ counterId, query, signal }) {
  if (!isName(counterId)) return noCounter(counterId);
  const value = element("output", { class: "value", "aria-live": "off" }, "…");
  const facts = element("p", { class: "facts" });
  const state = { value: null, version: null, etag: null };
  let pause = FAST;

  const look = poll(async () => {
    const answer = await read(counterPath(counterId), { known: state.etag, signal });
    pause = Math.min(pause * SLOWER, SLOW);
    if (answer.body !== null) {
      showCounter(answer.body, answer.etag);
      pause = FAST;
    }
    return pause;
  }, signal, (error) => replace(facts, errorBox(error, () => location.reload())));

  const showCounter = (counter, etag) => {
    if (state.version !== null && counter.version < state.version) return; // an older answer
    const before = state.value;
    const changed = state.version !== null && counter.version !== state.version;
    Object.assign(state, { value: counter.value, version: counter.version, etag });
    value.textContent = number(counter.value);
    replace(facts, ...factsOf(counter));
    if (!changed) return;
    flash(value, BigInt(counter.value) - BigInt(before));
    trend.refresh(counter.value);
    history.refresh(counter.version);
  };
  const change = changePanel(counterId, state, (counter, etag) => {
    if (counter.version !== null) showCounter(counter, etag);
    pause = FAST;
    look();
  });
  const trend = trendPanel([counterId], query, signal);
  const history = historyPanel(counterId, query, signal);

  const node = element("article", {},
    element("p", { class: "crumbs" }, element("a", { href: listUrl() }, "All counters")),
    element("div", { class: "hero" },
      element("div", {}, element("h1", {}, counterId), value, facts),
      change),
    trend.node,
    momentPanel(counterId, query, signal),
    history.node);
  return { title: counterId, node };
}

function noCounter(name) {
  return { title: name, node: element("article", {}, element("h1", {}, name), emptyBox(
    element("p", {}, "No counter can have this name. Look for a counter in ",
      element("a", { href: listUrl() }, "the list"), "."))) };
}

function factsOf(counter) {
  if (counter.version === 0) return ["Nobody has counted here yet."];
  return [`Version ${number(counter.version)} · last change `, timeElement(counter.updated_at),
    " · first change ", timeElement(counter.created_at)];
}

/** Show beside the value by how much it has just changed. */
function flash(value, difference) {
  value.dataset.change = difference === 0n ? "" : signed(difference);
  value.classList.remove("flash");
  void value.offsetWidth; // starts the animation again
  value.classList.add("flash");
}
