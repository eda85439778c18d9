// Shows numbers in the reader's format, and times in the reader's time zone or in UTC.

import { element } from "./dom.js";

const NUMBER = new Intl.NumberFormat();
const SIGNED = new Intl.NumberFormat(undefined, { signDisplay: "exceptZero" });
const COMPACT = new Intl.NumberFormat(undefined, { notation: "compact" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Return the name of the reader's time zone. */
export const ownZone = () => HERE;

/** Return whether times are shown in UTC. */
export const isUtc = () => localStorage.getItem("tally.zone") === "utc";

/** Show times in UTC, or in the reader's time zone. */
export const useUtc = (utc) => localStorage.setItem("tally.zone", utc ? "utc" : "own");

/** Return the name of the time zone in which times are shown. */
export const zone = () => (isUtc() ? "UTC" : HERE);

export const number = (value) => NUMBER.format(value);

/** Return a number with its sign, such as +5. */
export const signed = (value) => SIGNED.format(value);

/** Return a short form of a number, such as 12K. */
export const compact = (value) => COMPACT.format(value);

/** Return a time with seconds, in the chosen time zone. */
export const time = (value) => formatted(value, { dateStyle: "medium", timeStyle: "medium" });

/** Return a time without seconds, in the chosen time zone. */
export const minute = (value) => formatted(value, { dateStyle: "medium", timeStyle: "short" });

/** Return a time as a `time` element. */
export const timeElement = (value) => element("time", { datetime: value }, time(value));

/** Return how long ago a time was, as a `time` element. Its title is the time. */
export function agoElement(value) {
  if (value === null) return element("span", {}, "never");
  return element("time", { datetime: value, title: time(value) }, ago(value));
}

/** Return how long ago a time was, in words. */
export function ago(value) {
  const seconds = (Date.parse(value) - Date.now()) / 1000;
  const [size, unit] = UNITS.find(([least]) => -seconds >= least) ?? [1, "second"];
  return AGO.format(Math.min(0, Math.round(seconds / size)), unit);
}

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"]];

/**
 * Return the label of a tick on a time axis.
 *
 * @param {number} seconds the time, in seconds since the epoch
 * @param {number} step the distance of two ticks, in seconds
 */
export function tick(seconds, step) {
  const date = new Date(seconds * 1000);
  const clock = formatted(date, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  if (step < 86400 && clock !== "00:00") {
    return formatted(date, { hour: "numeric", minute: "2-digit" });
  }
  const year = step >= 86400 * 360 ? { year: "numeric" } : {};
  return formatted(date, { day: "numeric", month: "short", ...year });
}

/** Return a parameter of the URL that is a time; null if it is missing or not a time. */
export function timeParameter(query, name) {
  const text = query.get(name) ?? "";
  return /^(19[7-9]\d|[2-9]\d{3})-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text)) ? text : null;
}

/** Show all times on the page in the chosen time zone. */
export function showTimesAgain() {
  for (const node of document.querySelectorAll("time")) {
    if (node.title) node.title = time(node.dateTime);
    else node.textContent = time(node.dateTime);
  }
}

const formats = new Map();

function formatted(value, options) {
  const key = JSON.stringify([options, zone()]);
  if (!formats.has(key)) {
    formats.set(key, new Intl.DateTimeFormat(undefined, { ...options, timeZone: zone() }));
  }
  return formats.get(key).format(new Date(value));
}
