// The trend of one or several counters, as a chart and as a table.

import { counterPath, read } from "./api.js";
import { chart } from "./chart.js";
import { button, choice, element, replace } from "./dom.js";
import { fileName, saveCsv, savePng } from "./download.js";
import { isTemporary } from "./errors.js";
import { minute, number, timeElement } from "./format.js";
import { errorBox, loadingLine } from "./messages.js";
import { SECONDS, periodFields } from "./period.js";
import { atMostEvery } from "./polling.js";
import { setQuery } from "./route.js";

/** How many counters a chart can show. style.css has as many colors. */
export const MOST_LINES = 8;

const REFRESH = 10_000; // the shortest pause between two reads, in milliseconds
const ROUTINE = 60_000; // the pause between two reads if nothing changes, in milliseconds

/**
 * Return the trend of counters.
 *
 * @param {Array<string>} counterIds
 * @param {URLSearchParams} query the query of the view; `show` is `changes` or `value`
 * @param {AbortSignal} signal
 * @returns {{node: HTMLElement, refresh: function(number=)}} `refresh` reads the trend again, but not
 *   too often. Its argument is the value if there is only one counter.
 */
export function trendPanel(counterIds, query, signal) {
  const place = element("div", { class: "place" }, loadingLine());
  const data = dataTable();
  // What can have the focus stays in the page when the trend is read again.
  const save = { csv() {}, png() {} };
  const buttons = element("div", { class: "buttons", hidden: true },
    button("CSV", () => save.csv(), { "aria-label": "Download as CSV" }),
    button("PNG", () => save.png(), { "aria-label": "Download as PNG" }));
  let form = query.get("show") === "value" ? "value" : "changes";
  let newestValue = null; // the value of the only counter; null if it is not known
  let latest = 0; // counts the reads, so that an old answer does not replace a newer one
  let drawn = new AbortController(); // aborted when another chart replaces the current one
  let drawing = null;

  const load = async () => {
    const mine = ++latest;
    const period = chosen();
    try {
      const trends = await readTrends(counterIds, period, signal);
      if (mine !== latest || signal.aborted) return;
      show(trends, period.interval);
      // The trend has a change a moment after the counter.
      if (period.isLive && newestValue !== null && trends[0].at(-1)?.close !== newestValue) refresh();
    } catch (error) {
      if (mine !== latest || signal.aborted) return;
      if (isTemporary(error)) refresh();
      if (drawing !== null && period.isLive && isTemporary(error)) return; // keep the chart
      replace(place, errorBox(error, load));
      data.node.hidden = buttons.hidden = true;
    }
  };
  const show = (trends, interval) => {
    const cursor = drawing?.cursor();
    drawn.abort();
    drawn = new AbortController();
    const view = counterIds.length > 1 ? severalTrends(counterIds, trends, form)
      : oneTrend(trends[0], form, interval);
    const times = positions(trends[0], interval, form);
    drawing = chart({
      ...view, times, step: SECONDS[interval], signal: AbortSignal.any([signal, drawn.signal]),
      describe: (index) => view.describe(index, intervalText(trends[0][index].start, interval)),
    });
    replace(place, element("p", { class: "summary" }, view.summary), legend(view), drawing.node);
    drawing.draw(cursor);
    data.show(view);
    const name = fileName(...counterIds, interval);
    const title = `${counterIds.join(", ")}: ${form} by ${interval}`;
    save.csv = () => saveCsv(name, view.header, view.rows);
    save.png = () => savePng(name, title, view.lines, drawing.canvas);
    data.node.hidden = buttons.hidden = false;
  };
  const { node: fields, chosen } = periodFields(query, load);
  const changes = counterIds.length > 1 ? "Added" : "Changes";
  const forms = choice("What to show", [["changes", changes], ["value", "Value"]], form,
    (value) => {
      form = value;
      setQuery({ show: value === "changes" ? null : value });
      load();
    });
  const refresh = atMostEvery(REFRESH, load, signal);
  const routine = setInterval(() => document.hidden || !chosen().isLive || load(), ROUTINE);
  signal.addEventListener("abort", () => clearInterval(routine));
  load();
  const node = element("section", { class: "panel", "aria-label": "Trend" },
    element("div", { class: "panel-head" }, element("h2", {}, "Trend"), buttons),
    element("div", { class: "controls" }, fields, forms), place, data.node);
  return {
    node,
    refresh(value = null) {
      newestValue = value;
      if (chosen().isLive) refresh();
    },
  };
}

/** Return the trend of each counter: the same intervals of all of them. */
async function readTrends(counterIds, { interval, from, to }, signal) {
  const expected = counterIds.length === 1 && interval !== "minute" ? "true" : null;
  const query = { interval, from, to, expected };
  const answers = await Promise.all(
    counterIds.map((id) => read(`${counterPath(id)}/trend`, { query, signal })));
  // An interval can begin between two of these reads.
  const shortest = Math.min(...answers.map(({ body }) => body.length));
  return answers.map(({ body }) => body.slice(0, shortest));
}

/** Return the chart and the table of one counter. */
function oneTrend(buckets, form, interval) {
  const has = (bucket) => bucket.expected !== null && bucket.expected !== undefined;
  const unusual = buckets.filter((bucket) => bucket.unusual).length;
  const increase = sum(buckets, "increase");
  const decrease = sum(buckets, "decrease");
  return {
    summary: `${number(increase)} added and ${number(decrease)} subtracted in `
      + `${buckets.length === 1 ? `1 ${interval}` : `${number(buckets.length)} ${interval}s`}.`
      + (unusual ? ` ${number(unusual)} unusual.` : "")
      + (buckets.some((bucket) => bucket.expected === null) && !buckets.some(has)
        ? " What is expected is known after four weeks." : ""),
    lines: form === "value"
      ? [line("Value", buckets.map((bucket) => bucket.close), "line", "--line-1")]
      : changeLines(buckets),
    band: form === "changes" && buckets.some(has) ? {
      low: buckets.map((bucket) => (has(bucket) ? Number(bucket.expected.low) : null)),
      high: buckets.map((bucket) => (has(bucket) ? Number(bucket.expected.high) : null)),
    } : null,
    fromZero: form === "changes",
    describe: (index, when) => describeOne(buckets[index], when),
    header: ["start", "changes", "increase", "decrease", "close", "expected_low", "expected_high",
      "unusual"],
    rows: buckets.map((bucket) => [bucket.start, bucket.changes, bucket.increase, bucket.decrease,
      bucket.close, bucket.expected?.low ?? null, bucket.expected?.high ?? null,
      bucket.unusual ?? null]),
  };
}

function changeLines(buckets) {
  const lines = [line("Added", buckets.map((bucket) => bucket.increase), "bars", "--up")];
  if (buckets.some((bucket) => bucket.decrease)) {
    lines.push(line("Subtracted", buckets.map((bucket) => -bucket.decrease), "bars", "--down"));
  }
  if (buckets.some((bucket) => bucket.unusual)) {
    const marks = buckets.map((bucket) => (bucket.unusual ? bucket.increase : null));
    lines.push(line("Unusual", marks, "points", "--unusual"));
  }
  return lines;
}

function describeOne(bucket, when) {
  const parts = [`${when}: ${number(bucket.increase)} added`];
  if (bucket.decrease) parts.push(`${number(bucket.decrease)} subtracted`);
  parts.push(`value ${number(bucket.close)}`);
  if (bucket.expected) {
    parts.push(`expected ${number(bucket.expected.low)} to ${number(bucket.expected.high)}`);
  }
  return parts.join(", ") + (bucket.unusual ? " — unusual" : "");
}

/** Return the chart and the table of several counters. */
function severalTrends(counterIds, trends, form) {
  const member = form === "value" ? "close" : "increase";
  return {
    summary: form === "value" ? "The values of these counters."
      : "What was added to these counters.",
    lines: trends.map((buckets, index) =>
      line(counterIds[index], buckets.map((bucket) => bucket[member]), "line", `--line-${index + 1}`)),
    band: null,
    fromZero: form === "changes",
    describe: (index, when) => `${when}: ${trends.map((buckets, each) =>
      `${counterIds[each]} ${number(buckets[index][member])}`).join(", ")}`,
    header: ["start", ...counterIds],
    rows: trends[0].map((bucket, index) =>
      [bucket.start, ...trends.map((buckets) => buckets[index][member])]),
  };
}

/** Return a line of a chart. The chart rounds sums that are too large for a number. */
function line(label, values, form, color) {
  return { label, values: values.map((each) => (each === null ? null : Number(each))), form, color };
}

// Sums can be greater than the integers that a number represents exactly.
const sum = (buckets, member) => buckets.reduce((total, each) => total + BigInt(each[member]), 0n);

/** Return what each color of a chart means. */
function legend({ lines, band }) {
  const keys = lines.map(({ label, color }) => [label, color]);
  if (band) keys.push(["Expected", "--expected"]);
  return element("ul", { class: "legend" },
    ...keys.map(([label, color]) => element("li", { class: `key key${color}` }, label)));
}

/** Return where the intervals are on the time axis: values at their ends, sums in their middles. */
function positions(buckets, interval, form) {
  const starts = buckets.map((bucket) => Date.parse(bucket.start) / 1000);
  if (form === "changes") return starts.map((start) => start + SECONDS[interval] / 2);
  return starts.map((start) => Math.min(start + SECONDS[interval], Date.now() / 1000));
}

function intervalText(start, interval) {
  if (interval === "minute") return minute(start);
  return `${minute(start)} to ${minute(Date.parse(start) + SECONDS[interval] * 1000)}`;
}

/** Return the table of a chart. It is filled when somebody opens it. */
function dataTable() {
  const table = element("div", { class: "scroll", tabindex: "0", role: "region",
    "aria-label": "Data of the chart" });
  const node = element("details", { hidden: true }, element("summary", {}, "Show as a table"), table);
  let shownView = null;
  const fill = () => node.open && shownView && replace(table, tableOf(shownView));
  node.addEventListener("toggle", fill);
  return {
    node,
    show(view) {
      shownView = view;
      fill();
    },
  };
}

function tableOf({ header, rows }) {
  return element("table", {},
    element("thead", {}, element("tr", {},
      ...header.map((name) => element("th", { scope: "col" }, name.replaceAll("_", " "))))),
    element("tbody", {}, ...rows.map(([start, ...cells]) => element("tr", {},
      element("th", { scope: "row" }, timeElement(start)),
      ...cells.map((cell) => element("td", {}, shown(cell)))))));
}

function shown(cell) {
  if (cell === null) return "";
  return typeof cell === "boolean" ? (cell ? "yes" : "no") : number(cell);
}
