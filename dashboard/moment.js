// The value of a counter at a moment in the past.

import { counterPath, read } from "./api.js";
import { button, element, labelled, replace } from "./dom.js";
import { number, timeElement, timeParameter } from "./format.js";
import { errorBox, loadingLine } from "./messages.js";
import { setQuery } from "./route.js";
import { timeField, timeOf } from "./time_field.js";

const SETTLED = 20_000; // after this time, the value of a moment is known; in milliseconds

/**
 * Return a form that shows the value at a moment. The query of the URL has the moment: `at`.
 *
 * @param {string} counterId
 * @param {URLSearchParams} query the query of the view
 * @param {AbortSignal} signal
 */
export function momentPanel(counterId, query, signal) {
  const chosen = timeParameter(query, "at");
  const field = timeField(chosen, { required: true });
  const place = element("div", { role: "status" });
  let latest = 0; // counts the reads, so that an old answer does not replace a newer one
  const show = async (at) => {
    const mine = ++latest;
    const isRecent = Date.parse(at) > Date.now() - SETTLED;
    replace(place, isRecent ? waitLine() : loadingLine());
    try {
      const { body } = await read(counterPath(counterId), { query: { at }, signal });
      if (mine === latest) replace(place, ...answer(body, at));
    } catch (error) {
      if (mine === latest && !signal.aborted) replace(place, errorBox(error, () => show(at)));
    }
  };
  const form = element("form", { "aria-label": "Value in the past" },
    labelled("Date and time", field), button("Show", null, { type: "submit" }));
  field.addEventListener("input", () => field.setCustomValidity(""));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const at = timeOf(field);
    const isPast = Date.parse(at) <= Date.now();
    field.setCustomValidity(isPast ? "" : "Choose a moment in the past.");
    if (!field.reportValidity()) return;
    setQuery({ at });
    show(at);
  });
  if (chosen) show(chosen);
  return element("section", { class: "panel", "aria-label": "Value in the past" },
    element("div", { class: "panel-head" }, element("h2", {}, "Value in the past")), form, place);
}

function waitLine() {
  return element("p", { class: "loading" }, "The value of a moment is known 20 seconds later…");
}

function answer(counter, at) {
  const value = element("p", { class: "past" }, element("strong", {}, number(counter.value)),
    " at ", timeElement(at));
  const facts = counter.version === 0 ? "Nobody had counted here yet."
    : element("span", {}, `Version ${number(counter.version)}, made `,
      timeElement(counter.updated_at));
  return [value, element("p", { class: "facts" }, facts)];
}
