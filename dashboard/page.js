// A page of the list: up to about 100 rows. Its rows exist only while the page is near the screen.

import { element } from "./dom.js";
import { ago, agoElement, number } from "./format.js";
import { counterUrl } from "./route.js";

const NEAR = "1000px"; // how far outside the screen rows exist

/**
 * Return an empty page.
 *
 * @param {?string} after the last name of the page before; null for the first page
 * @param {object} context `choices`, `curves` and `signal` of the list
 * @returns {object} `node`, the rows; `merge(counters)` adds or updates counters; `last()` returns
 *   the last name, null if there is none; `inSight()` returns whether the rows exist
 */
export function newPage(after, context) {
  const node = element("tbody");
  const counters = new Map(); // by name
  const rows = new Map(); // by name
  let near = true;

  const show = () => {
    const names = [...counters.keys()].sort();
    names.forEach((name, index) => {
      let row = rows.get(name);
      if (row === undefined) {
        row = newRow(name, counters, context);
        rows.set(name, row);
      }
      if (node.children[index] !== row.node) {
        node.insertBefore(row.node, node.children[index] ?? null);
      }
      row.update();
    });
  };
  const hide = () => {
    const height = node.offsetHeight;
    for (const row of rows.values()) row.remove();
    rows.clear();
    const spacer = element("td", { colspan: "5" });
    spacer.style.height = `${height}px`;
    node.replaceChildren(element("tr", { "aria-hidden": "true" }, spacer));
  };
  const observer = new IntersectionObserver((entries) => {
    const { isIntersecting } = entries.at(-1);
    if (isIntersecting === near || counters.size === 0) return;
    if (near && node.contains(document.activeElement)) return; // do not take the focus away
    near = isIntersecting;
    if (near) {
      node.replaceChildren();
      show();
    } else hide();
  }, { rootMargin: NEAR });
  observer.observe(node);
  context.signal.addEventListener("abort", () => observer.disconnect());
  return {
    node, after,
    merge(found) {
      for (const counter of found) {
        const known = counters.get(counter.counter_id);
        if (!known || known.version <= counter.version) counters.set(counter.counter_id, counter);
      }
      if (near) show();
    },
    last: () => [...counters.keys()].reduce((a, b) => (a > b ? a : b), null),
    inSight: () => near,
  };
}

function newRow(name, counters, { choices, curves }) {
  const box = element("input", {
    type: "checkbox", "aria-label": `Compare ${name}`, checked: choices.chosen.has(name),
    onchange: () => choices.choose(name, box.checked),
  });
  const value = element("td", { class: "number" });
  const curve = element("td", { class: "day" });
  const changed = element("td", { class: "changed" });
  const node = element("tr", {},
    element("td", {}, box),
    element("th", { scope: "row" }, element("a", { href: counterUrl(name) }, name)),
    value, curve, changed);
  let version = null;
  return {
    node,
    update() {
      const counter = counters.get(name);
      curves.watch(curve, () => counters.get(name));
      if (counter.version === version) {
        changed.firstChild.textContent = ago(counter.updated_at);
        return;
      }
      if (version !== null) node.classList.add("fresh");
      version = counter.version;
      value.textContent = number(counter.value);
      changed.replaceChildren(agoElement(counter.updated_at));
    },
    remove() {
      curves.forget(curve);
    },
  };
}
