// The list of counters. It reads 100 counters at a time, as far as somebody scrolls.

import { read } from "./api.js";
import { lost } from "./connection.js";
import { curveReader } from "./curves.js";
import { button, element, labelled, replace } from "./dom.js";
import { emptyBox, errorBox } from "./messages.js";
import { newPage } from "./page.js";
import { poll } from "./polling.js";
import { compareUrl, counterUrl, isName, setQuery } from "./route.js";
import { MOST_LINES } from "./trend.js";

const PAGE = 100; // the most counters that the API returns at once
const PAUSE = 5_000; // milliseconds between two reads of the pages in sight
const TYPING = 200; // milliseconds without a key press before a search begins

/** Return the view of all counters. The query of the URL has the `prefix`. */
export function listView({ query, signal }) {
  const place = element("div");
  const chosen = new Set();
  const compare = element("a", { class: "button", hidden: true });
  const choose = (counterId, isChosen) => {
    if (isChosen) chosen.add(counterId);
    else chosen.delete(counterId);
    compare.hidden = chosen.size < 2;
    compare.href = compareUrl([...chosen]);
    compare.textContent = chosen.size > MOST_LINES ? `Compare the first ${MOST_LINES}`
      : `Compare ${chosen.size} counters`;
  };
  let searched = new AbortController();
  const search = (prefix) => {
    searched.abort();
    searched = new AbortController();
    replace(place, table(prefix, { chosen, choose }, AbortSignal.any([signal, searched.signal])));
  };
  const field = element("input", {
    type: "search", value: query.get("prefix") ?? "", autocomplete: "off", spellcheck: "false",
    placeholder: "Name begins with…",
  });
  let timer;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      setQuery({ prefix: field.value.trim() });
      search(field.value.trim());
    }, TYPING);
  });
  signal.addEventListener("abort", () => clearTimeout(timer));
  search(field.value.trim());
  const node = element("section", {},
    element("h1", {}, "Counters"),
    element("div", { class: "controls" }, labelled("Search", field), compare), place);
  return { title: "Counters", node };
}

/** Return the table of the counters whose names begin with a prefix. */
function table(prefix, choices, signal) {
  if (prefix && !isName(prefix)) return noCounters(prefix);
  const pages = [];
  const rows = element("table", { class: "counters" }, head());
  const more = button("Show more", () => tryToGrow(), { hidden: true });
  const hint = element("div");
  const empty = noCounters(prefix);
  empty.hidden = true;
  const context = { choices, curves: curveReader(signal), signal };
  let growing = false;
  let hasFailed = false; // whether the list must grow again, because it could not

  const readPage = async (page) => {
    const isLast = page === pages.at(-1);
    const end = page.last();
    let after = page.after;
    let hasRest = false; // whether there are counters behind the end of the page
    do {
      const { body, next } = await read("counters", {
        query: { values: "true", limit: PAGE, prefix: prefix || null, after }, signal,
      });
      // The rest belongs to the next page. Only its first answer can make the last page longer.
      const isOpen = isLast && after === page.after;
      page.merge(isOpen ? body : body.filter(({ counter_id: name }) => name <= end));
      hasRest = !isOpen && body.some(({ counter_id: name }) => name > end);
      after = next?.after ?? null;
      // New counters may have moved the last counters of this page out of the answer.
    } while (after !== null && end !== null && after < end);
    if (page === pages.at(-1)) more.hidden = after === null && !hasRest;
  };
  const grow = async () => {
    if (growing || (pages.length && more.hidden)) return;
    growing = true;
    const page = newPage(pages.at(-1)?.last() ?? null, context);
    pages.push(page);
    rows.append(page.node);
    try {
      await readPage(page);
      // The observer only reports changes. So let it report again if the end is still in sight.
      end.unobserve(more);
      end.observe(more);
    } catch (error) {
      pages.pop();
      page.node.remove();
      throw error;
    } finally {
      growing = false;
    }
  };
  const tryToGrow = () => grow().catch((error) => {
    if (signal.aborted) return;
    hasFailed = true;
    lost(error);
  });
  poll(async () => {
    if (pages.length === 0 || hasFailed) {
      await grow();
      hasFailed = false;
    } else await Promise.all(pages.filter((page) => page.inSight()).map(readPage));
    empty.hidden = pages[0].last() !== null;
    rows.hidden = !empty.hidden;
    replace(hint);
    return PAUSE;
  }, signal, (error) => replace(hint, errorBox(error, () => location.reload())));
  const end = new IntersectionObserver((entries) => {
    if (entries.at(-1).isIntersecting && pages.length) tryToGrow();
  }, { rootMargin: "800px" });
  end.observe(more);
  signal.addEventListener("abort", () => end.disconnect());
  return element("div", {}, rows, empty, hint, more);
}

function head() {
  return element("thead", {}, element("tr", {},
    element("td", {}),
    ...["Name", "Value", "Last 24 hours", "Last change"].map((text) =>
      element("th", { scope: "col" }, text))));
}

function noCounters(prefix) {
  if (!prefix) {
    return emptyBox(element("p", {}, "There are no counters yet. A counter appears here as soon as"
      + " somebody counts, for example with the command ", element("code", {}, "tally increment visits"),
    "."));
  }
  return emptyBox(element("p", {}, `No counter's name begins with “${prefix}”.`),
    isName(prefix) ? element("p", {}, element("a", { href: counterUrl(prefix) },
      `Open “${prefix}” and count the first one`)) : null);
}
