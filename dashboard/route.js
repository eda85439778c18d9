// The URL of each view. It is in the part behind #, so the server always sends the same page.
//
// #/                          the list; `prefix`
// #/counters/{counter_id}     one counter; see trend.js, moment.js and history.js for its query
// #/compare?id=…&id=…         several counters

/** Return the view that the URL names: `name`, `counterId` and `query`. */
export function current() {
  const [path, query] = location.hash.slice(1).split("?", 2);
  const counterId = decoded(/^\/counters\/([^/]+)$/.exec(path)?.[1]);
  return {
    name: counterId ? "counter" : path === "/compare" ? "compare" : "list",
    counterId,
    query: new URLSearchParams(query),
  };
}

/** Return whether a counter can have this name. */
export const isName = (text) => /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/.test(text);

export const listUrl = () => "#/";

export const counterUrl = (counterId) => `#/counters/${encodeURIComponent(counterId)}`;

export function compareUrl(counterIds) {
  return `#/compare?${new URLSearchParams(counterIds.map((each) => ["id", each]))}`;
}

/** Change the query of the current view, without leaving it. null removes a parameter. */
export function setQuery(changes) {
  const { query } = current();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const path = location.hash.slice(1).split("?", 1)[0] || "/";
  history.replaceState(null, "", `#${path}${query.size ? `?${query}` : ""}`);
}

function decoded(text) {
  try {
    return text && decodeURIComponent(text);
  } catch {
    return undefined; // somebody has edited the URL by hand
  }
}
