// Fields for a date and a time. They show the time in the chosen time zone.

import { element } from "./dom.js";
import { isUtc } from "./format.js";

/**
 * Return a field that shows a time.
 *
 * @param {?string} time the time; null for an empty field
 * @param {object} attributes more attributes of the field
 */
export function timeField(time, attributes = {}) {
  const field = element("input", {
    type: "datetime-local", step: "1", min: "1970-01-01T00:00:00", max: "9999-12-31T23:59:59",
    ...attributes,
  });
  setTime(field, time);
  return field;
}

/** Let a field show a time; null empties it. */
export function setTime(field, time) {
  field.dataset.time = time ?? "";
  field.value = time === null ? "" : textOf(time);
}

/** Return the time that a field shows, as an RFC 3339 time in UTC; null if it is empty. */
export function timeOf(field) {
  const { time } = field.dataset;
  // When clocks are set back, the same text means two times. So keep the time as it was given.
  if (time && field.value === textOf(time)) return new Date(time).toISOString();
  return field.value ? new Date(isUtc() ? `${field.value}Z` : field.value).toISOString() : null;
}

/** Mark the field of an end as wrong if the end is not after the start. Return whether it is. */
export function isAfter(end, start) {
  const isRight = !start.value || !end.value || timeOf(start) < timeOf(end);
  end.setCustomValidity(isRight ? "" : "The end must be after the start.");
  end.oninput = () => end.setCustomValidity("");
  return end.reportValidity();
}

/** Do something that changes the time zone. All fields then show their times in the new one. */
export function keepTimes(change) {
  const fields = [...document.querySelectorAll("input[type=datetime-local]")];
  const times = fields.map(timeOf);
  change();
  fields.forEach((field, index) => setTime(field, times[index]));
}

function textOf(time) {
  const date = new Date(time);
  const shifted = isUtc() ? date : new Date(date - date.getTimezoneOffset() * 60000);
  return shifted.toISOString().slice(0, 19);
}
