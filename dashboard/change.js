// The forms that change a counter. Each change is counted once, however often it is clicked or sent.

import { increment, set } from "./api.js";
import { announce, button, element, labelled, replace } from "./dom.js";
import { NoAnswerError, isUnknown } from "./errors.js";
import { number } from "./format.js";
import { whyNot } from "./messages.js";
import { may } from "./session.js";

/**
 * Return the forms that the person may use.
 *
 * @param {string} counterId
 * @param {{value: number, etag: string}} state the counter as the page shows it
 * @param {function(object, string)} changed called with the counter after a change, and its ETag
 */
export function changePanel(counterId, state, changed) {
  const outcome = element("div", { class: "outcome", tabindex: "-1" });
  const run = runner(outcome, changed);
  return element("div", { class: "change" },
    may("increment", counterId) ? addForm(counterId, run) : null,
    may("set", counterId) ? setForm(counterId, state, run) : null,
    outcome);
}

function addForm(counterId, run) {
  const by = integerField({ value: "1", min: "1", required: true });
  const [min, max] = [integerField(), integerField()];
  const form = element("form", { "aria-label": "Add or subtract" },
    labelled("How many", by),
    button("Add", null, { type: "submit", value: "1", class: "primary" }),
    button("Subtract", null, { type: "submit", value: "-1" }),
    element("details", {}, element("summary", {}, "Limits"),
      element("div", {}, labelled("Not below", min), labelled("Not above", max))));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const sign = Number(event.submitter?.value ?? 1);
    const change = { by: sign * Number(by.value) };
    if (min.value) change.min = Number(min.value);
    if (max.value) change.max = Number(max.value);
    const key = crypto.randomUUID(); // one key for this change, also when it is sent again
    const done = sign > 0 ? `Added ${by.value}.` : `Subtracted ${by.value}.`;
    run(form, change, done, (wasUnknown) => increment(counterId, change, key, wasUnknown));
  });
  return onceForEachClick(form);
}

function setForm(counterId, state, run) {
  const value = integerField({ required: true });
  const form = element("form", { "aria-label": "Set" },
    labelled("New value", value), button("Set", null, { type: "submit" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const change = { value: Number(value.value) };
    if (state.etag === null) return; // the counter is not shown yet
    run(form, change, `Set to ${number(change.value)}.`,
      () => set(counterId, change.value, state.etag));
  });
  return onceForEachClick(form);
}

/** Return a function that makes a change, unless another one is still being made. */
function runner(outcome, changed) {
  let busy = false;
  const say = (kind, text, ...more) => {
    replace(outcome, element("p", { class: `message ${kind}` }, text), ...more);
    announce(text);
  };
  return async function run(form, change, done, send, wasUnknown = false) {
    if (busy) return; // the page says "Sending…"
    busy = true;
    form.setAttribute("aria-busy", "true");
    replace(outcome, element("p", { class: "message" }, "Sending…"));
    let answer = null;
    try {
      answer = checked(await send(wasUnknown));
      const { value } = answer.body;
      // In rare cases, the API knows that the change was made, but not which value it gave.
      say("good", value === null ? done : `${done} The value became ${number(value)}.`);
    } catch (error) {
      const again = () => run(form, change, done, send, true);
      if (!isUnknown(error)) say("error", whyNot(error, change));
      else if (change.by === undefined) say("error", `${whyNot(error, change)} Look at the value.`);
      else {
        say("error", `${whyNot(error, change)} It is safe to send it again: it counts once.`,
          button("Send it again", () => {
            outcome.focus(); // the button disappears
            again();
          }));
      }
    } finally {
      busy = false;
      form.removeAttribute("aria-busy");
    }
    if (answer !== null) changed(answer.body, answer.etag);
  };
}

/** Return an answer, unless the page cannot use it. */
function checked(answer) {
  const value = answer.body?.value;
  if (value !== null && !Number.isInteger(value)) throw new NoAnswerError("It is no counter.");
  return answer;
}

/**
 * Ignore the second click of a double click, and a key that is held down. The answer to the first
 * click may be there before the second click.
 */
function onceForEachClick(form) {
  form.addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter") event.preventDefault();
  });
  form.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest("[type=submit]")) event.preventDefault();
  });
  return form;
}

function integerField(attributes = {}) {
  const most = String(Number.MAX_SAFE_INTEGER);
  return element("input", {
    type: "number", step: "1", inputmode: "numeric", min: `-${most}`, max: most, ...attributes,
  });
}
