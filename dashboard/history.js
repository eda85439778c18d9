// The history of a counter: a table of its changes, the newest first.

import { counterPath, read } from "./api.js";
import { button, element, labelled, replace } from "./dom.js";
import { fileName, saveCsv } from "./download.js";
import { isTemporary } from "./errors.js";
import { number, signed, timeElement, timeParameter } from "./format.js";
import { emptyBox, errorBox, inWords, loadingLine } from "./messages.js";
import { atMostEvery } from "./polling.js";
import { setQuery } from "./route.js";
import { isMe } from "./session.js";
import { isAfter, setTime, timeField, timeOf } from "./time_field.js";

const PAGE = 25;
const LARGE_PAGE = 1000; // for downloads; the most that the API returns at once
const MOST_ROWS = 50_000; // of a download
const REFRESH = 5_000; // the shortest pause between two reads, in milliseconds

const COLUMNS = ["version", "created_at", "operation", "by", "increase", "decrease",
  "previous_value", "value", "actor", "events", "sender"];

/**
 * Return the history of a counter.
 *
 * The query of the URL has what is shown: `changes_from`, `changes_to`, and `before`, a version: the
 * page begins with the version below.
 *
 * @param {string} counterId
 * @param {URLSearchParams} query the query of the view
 * @param {AbortSignal} signal
 * @returns {{node: HTMLElement, refresh: function(number)}} `refresh` reads the first page again. Its
 *   argument is the counter's version.
 */
export function historyPanel(counterId, query, signal) {
  const path = `${counterPath(counterId)}/history`;
  const state = {
    from: timeParameter(query, "changes_from"), to: timeParameter(query, "changes_to"),
    after: /^\d{1,16}$/.test(query.get("before")) ? query.get("before") : null,
  };
  const place = element("div", { class: "scroll", tabindex: "0", role: "region",
    "aria-label": "Changes" }, loadingLine());
  const newest = button("Newest", () => go({ after: null }), { disabled: true });
  const older = button("Older", () => last && go({ after: last }), { disabled: true });
  let last = null; // the version of the last row; null while other rows are read
  let newestVersion = 0; // the counter's version
  let latest = 0; // counts the reads, so that an old answer does not replace a newer one
  const status = element("p", { role: "status", class: "facts" });

  const load = async () => {
    const mine = ++latest;
    try {
      const page = { ...state, order: "desc", limit: PAGE };
      const { body, next } = await read(path, { query: page, signal });
      if (mine !== latest) return;
      replace(place, contentOf(body, state));
      last = body.at(-1)?.version ?? null;
      if (document.activeElement === older && next === null) place.focus();
      if (document.activeElement === newest && state.after === null) place.focus();
      newest.disabled = state.after === null;
      older.disabled = next === null || last === null;
      // The history has a change a moment after the counter.
      const isAll = state.after === null && !state.from && !state.to;
      if (isAll && (body[0]?.version ?? 0) < newestVersion) refresh();
    } catch (error) {
      if (mine !== latest || signal.aborted) return;
      if (isTemporary(error)) refresh();
      if (last === null || !isTemporary(error)) replace(place, errorBox(error, load));
    }
  };
  const go = (changes) => {
    Object.assign(state, changes);
    setQuery({ changes_from: state.from, changes_to: state.to, before: state.after });
    place.scrollTop = 0;
    last = null;
    return load();
  };
  const download = async () => {
    status.textContent = "Reading…";
    try {
      const rows = await allRows(path, state, signal);
      saveCsv(fileName(counterId, "history"), COLUMNS, rows);
      status.textContent = rows.length < MOST_ROWS ? ""
        : `The file has the newest ${number(MOST_ROWS)} changes. Choose a period for older ones.`;
    } catch (error) {
      if (!signal.aborted) status.textContent = inWords(error);
    }
  };
  load();
  const refresh = atMostEvery(REFRESH, load, signal);
  const node = element("section", { class: "panel", "aria-label": "History" },
    element("div", { class: "panel-head" }, element("h2", {}, "History"),
      element("div", { class: "buttons" },
        button("CSV", download, { "aria-label": "Download the history as CSV" }))),
    filterForm(state, go), status, place,
    element("div", { class: "buttons" }, newest, older));
  return {
    node,
    refresh(version) {
      newestVersion = version;
      if (state.after === null) refresh();
    },
  };
}

function filterForm(state, go) {
  const from = timeField(state.from);
  const to = timeField(state.to);
  const form = element("form", { "aria-label": "Period of the history" },
    labelled("From", from), labelled("Before", to), button("Filter", null, { type: "submit" }),
    button("All", () => {
      setTime(from, null);
      setTime(to, null);
      go({ from: null, to: null, after: null });
    }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isAfter(to, from)) go({ from: timeOf(from), to: timeOf(to), after: null });
  });
  return form;
}

function contentOf(entries, state) {
  if (entries.length > 0) return table(entries);
  return emptyBox(element("p", {}, state.after !== null ? "There are no older changes."
    : state.from || state.to ? "There are no changes in this period."
      : "There are no changes yet."));
}

function table(entries) {
  const heads = ["Version", "Time", "How", "Change", "Value", "Who"];
  return element("table", { class: "changes" },
    element("thead", {}, element("tr", {},
      ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...entries.map(row)));
}

function row(entry) {
  return element("tr", {},
    element("th", { scope: "row" }, number(entry.version)),
    element("td", {}, timeElement(entry.created_at)),
    element("td", {}, how(entry)),
    element("td", { class: entry.by < 0 ? "down" : "up" }, change(entry)),
    element("td", {}, `${number(entry.previous_value)} → ${number(entry.value)}`),
    element("td", { class: "actor" }, who(entry)));
}

function how(entry) {
  if (entry.events !== undefined) {
    return `${number(entry.events)} ${entry.events === 1 ? "event" : "events"}`;
  }
  return entry.operation;
}

/** Return the change. Only a change that counts several messages has additions and subtractions. */
function change(entry) {
  if (entry.operation === "set" || !entry.increase || !entry.decrease) return signed(entry.by);
  return `${signed(entry.increase)} ${signed(-entry.decrease)}`;
}

function who(entry) {
  if (isMe(entry.actor)) return "you";
  return entry.sender === undefined ? entry.actor : `${entry.actor} (${entry.sender})`;
}

async function allRows(path, { from, to }, signal) {
  const rows = [];
  let query = { from, to, order: "desc", limit: LARGE_PAGE };
  while (query !== null && rows.length < MOST_ROWS) {
    const { body, next } = await read(path, { query, signal });
    rows.push(...body.map((entry) => COLUMNS.map((column) => entry[column] ?? null)));
    query = next;
  }
  return rows.slice(0, MOST_ROWS);
}
