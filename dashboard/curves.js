// The small curves of the list. A curve is read when its row comes into sight.

import { counterPath, read } from "./api.js";
import { curve } from "./chart.js";
import { element, replace } from "./dom.js";
import { signed } from "./format.js";

const AT_ONCE = 4; // how many curves are read at once
const HOURS = 24;
const FRESH = 60_000; // how long a curve is shown before it is read again, in milliseconds

/**
 * Return what shows curves in cells.
 *
 * @param {AbortSignal} signal
 * @returns {{watch: function(HTMLElement, function(): object), forget: function(HTMLElement)}}
 *   `watch` shows the curve of a counter in a cell as long as the cell is in sight. Its function
 *   returns the counter. Call it again if the counter has changed.
 */
export function curveReader(signal) {
  const counters = new Map(); // a function for each watched cell that returns its counter
  const drawn = new Map(); // by name: which `version` was drawn, and `when`
  const waiting = new Set(); // cells
  let running = 0;

  const next = () => {
    while (running < AT_ONCE && waiting.size) {
      const [cell] = waiting;
      waiting.delete(cell);
      running += 1;
      draw(cell, counters.get(cell)?.()).finally(() => {
        running -= 1;
        next();
      });
    }
  };
  const draw = async (cell, counter) => {
    if (!counter || signal.aborted) return;
    try {
      const values = await lastHours(counter, signal);
      drawn.set(counter.counter_id, { version: counter.version, when: Date.now() });
      const total = values.reduce((sum, value) => sum + value, 0);
      replace(cell, curve(values), element("span", {}, total ? signed(total) : "—"));
    } catch {
      // The curve is missing. The row is read again soon, and then its curve is, too.
    }
  };
  const want = (cell) => {
    const counter = counters.get(cell)();
    const last = drawn.get(counter.counter_id);
    const isCurrent = last?.version === counter.version || Date.now() < last?.when + FRESH;
    if (!isCurrent || !cell.childElementCount) waiting.add(cell);
    next();
  };
  const inSight = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        inSight.add(target);
        want(target);
      } else {
        inSight.delete(target);
        waiting.delete(target);
      }
    }
  });
  signal.addEventListener("abort", () => observer.disconnect());
  return {
    watch(cell, counter) {
      counters.set(cell, counter);
      observer.observe(cell);
      if (inSight.has(cell)) want(cell);
    },
    forget(cell) {
      observer.unobserve(cell);
      for (const cells of [counters, inSight, waiting]) cells.delete(cell);
    },
  };
}

/** Return how much was added in each of the last hours. */
async function lastHours(counter, signal) {
  // A counter without a recent change needs no read.
  if (Date.parse(counter.updated_at) < Date.now() - HOURS * 3600_000) return Array(HOURS).fill(0);
  const { body } = await read(`${counterPath(counter.counter_id)}/trend`, { signal });
  return body.slice(-HOURS).map((bucket) => bucket.increase);
}
