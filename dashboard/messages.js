// Says what went wrong, and what to do.

import { button, element } from "./dom.js";
import { NoAnswerError, Problem, SignedOutError, isUnknown } from "./errors.js";
import { number } from "./format.js";

/** Return what an error means for a reader. */
export function inWords(error) {
  if (error instanceof SignedOutError) return "You are signed out. Sign in again.";
  if (error instanceof NoAnswerError) {
    return navigator.onLine ? "Tally does not answer." : "You are offline.";
  }
  if (!(error instanceof Problem)) return `This page has a bug: ${error.message}`;
  if (error.kind === "forbidden") return "Your account does not allow this.";
  if (error.kind === "throttled") return "Tally is busy. Try again in a moment.";
  if (error.kind === "internal-error") return "Tally has a bug. Its log has the cause.";
  return error.message;
}

/**
 * Return why a change was not made, or what is known about it.
 *
 * @param {Error} error
 * @param {object} change `by`, `min` and `max` of an increment; `value` of a set
 */
export function whyNot(error, change) {
  if (error.kind === "bound-exceeded") {
    const result = error.value + change.by;
    const bound = change.min !== undefined && result < change.min ? `below ${number(change.min)}`
      : change.max !== undefined && result > change.max ? `above ${number(change.max)}`
        : "outside the range of a counter";
    return `Not changed: the result would be ${bound}. The value is ${number(error.value)}.`;
  }
  if (error.kind === "version-mismatch") {
    return "Not set: somebody has changed the counter meanwhile. Look at the new value first.";
  }
  if (isUnknown(error)) return "No answer came, so it is not known whether the change was made.";
  return `Not changed. ${inWords(error)}`;
}

/** Return an error as a box, with a button that tries again. */
export function errorBox(error, again) {
  const tryAgain = () => {
    document.getElementById("view").focus({ preventScroll: true }); // the button disappears
    again();
  };
  return element("div", { class: "message error", role: "alert" },
    element("p", {}, inWords(error)), button("Try again", tryAgain));
}

/** Return a hint for an empty place. */
export const emptyBox = (...content) => element("div", { class: "message" }, ...content);

export const loadingLine = () => element("p", { class: "loading", role: "status" }, "Loading…");
