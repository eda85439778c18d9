// Which period a chart shows, and how long its intervals are.

import { button, choice, dropdown, element, labelled } from "./dom.js";
import { timeParameter } from "./format.js";
import { setQuery } from "./route.js";
import { isAfter, timeField, timeOf } from "./time_field.js";

/** The lengths of the intervals, in seconds. */
export const SECONDS = { minute: 60, hour: 3600, day: 86400 };

// The most intervals that the API returns.
const MOST = { minute: 180, hour: 1000, day: 1000 };

const RANGES = {
  "1h": ["Last hour", 3600],
  "3h": ["Last 3 hours", 3 * 3600],
  "24h": ["Last 24 hours", 86400],
  "7d": ["Last 7 days", 7 * 86400],
  "30d": ["Last 30 days", 30 * 86400],
  "90d": ["Last 90 days", 90 * 86400],
  "1y": ["Last year", 365 * 86400],
};

/**
 * Return fields for a period and an interval, with what they show now.
 *
 * The query of the URL has what was chosen: `range`, or `from` and `to`; and `interval`.
 *
 * @param {URLSearchParams} query
 * @param {function()} changed called when something else is chosen
 * @returns {{node: HTMLElement, chosen: function()}} `chosen` returns the `interval`, `from` and
 *   `to` for the API; and `isLive`, whether the period ends now.
 */
export function periodFields(query, changed) {
  const state = {
    range: Object.hasOwn(RANGES, query.get("range")) ? query.get("range") : "24h",
    from: timeParameter(query, "from"), to: timeParameter(query, "to"),
    interval: query.get("interval"),
  };
  const update = (changes) => {
    Object.assign(state, changes);
    setQuery({
      range: state.from ? null : state.range, from: state.from, to: state.to,
      interval: state.interval,
    });
    changed();
  };
  const rest = element("div", { class: "period" }); // depends on the period
  let lengths = null;
  const showIntervals = () => {
    const before = lengths;
    lengths = choice("Interval", intervals(state), intervalOf(state),
      (interval) => update({ interval }));
    if (before === null) rest.append(lengths);
    else before.replaceWith(lengths); // the fields of a period keep the focus
  };
  const updatePeriod = (changes) => {
    update(changes);
    showIntervals();
  };
  const showFields = () => {
    rest.querySelector("form")?.remove();
    if (state.from) rest.append(customFields(state, updatePeriod));
  };
  const ranges = Object.entries(RANGES).map(([key, [text]]) => [key, text]);
  const range = dropdown([...ranges, ["custom", "From … to …"]], state.from ? "custom" : state.range,
    (chosen) => {
      updatePeriod(rangeChosen(chosen, state));
      showFields();
    });
  showIntervals();
  showFields();
  const node = element("div", { class: "period" }, labelled("Period", range), rest);
  return { node, chosen: () => periodOf(state) };
}

function rangeChosen(range, state) {
  if (range !== "custom") return { range, from: null, to: null, interval: null };
  const { from } = periodOf(state);
  return { from, to: new Date().toISOString(), interval: intervalOf(state) };
}

function customFields(state, update) {
  const from = timeField(state.from, { required: true });
  const to = timeField(state.to ?? new Date().toISOString(), { required: true });
  const form = element("form", { "aria-label": "Period" },
    labelled("From", from), labelled("To", to), button("Show", null, { type: "submit" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isAfter(to, from)) update({ from: timeOf(from), to: timeOf(to), interval: null });
  });
  return form;
}

/** Return the length of the period, in seconds. */
function length(state) {
  if (!state.from) return RANGES[state.range][1];
  return (Date.parse(state.to ?? new Date()) - Date.parse(state.from)) / 1000;
}

/** Return how many intervals the period has. The API extends a period to whole intervals. */
function count(state, interval) {
  const step = SECONDS[interval] * 1000;
  if (!state.from) return RANGES[state.range][1] / SECONDS[interval];
  const end = Date.parse(state.to ?? new Date());
  return Math.ceil(end / step) - Math.floor(Date.parse(state.from) / step);
}

/** Return the intervals that the API allows, and of which the period has several. */
function intervals(state) {
  const allowed = Object.keys(SECONDS).filter((each) => count(state, each) <= MOST[each]);
  const several = allowed.filter((each) => count(state, each) > 1);
  const names = several.length ? several : [allowed[0] ?? "day"];
  return names.map((interval) => [interval, interval[0].toUpperCase() + interval.slice(1)]);
}

function intervalOf(state) {
  const allowed = intervals(state).map(([interval]) => interval);
  if (allowed.includes(state.interval)) return state.interval;
  const usual = length(state) <= 3 * SECONDS.hour ? "minute"
    : length(state) <= 8 * SECONDS.day ? "hour" : "day";
  return allowed.includes(usual) ? usual : allowed[0];
}

function periodOf(state) {
  const interval = intervalOf(state);
  if (state.from) return { interval, from: state.from, to: state.to, isLive: false };
  // The last interval is the current one. So a period of 24 hours has 24 intervals.
  const step = SECONDS[interval] * 1000;
  const end = Math.floor(Date.now() / step) * step + step;
  const first = end - RANGES[state.range][1] * 1000;
  return {
    interval, from: new Date(first).toISOString(), to: new Date(end).toISOString(), isLive: true,
  };
}
