// The small curves of the list. A curve is read when its row comes into sight.

import { counterPath, read } from "./api.js";
import { curve } from "./chart.js";
import { element, replace } from "./dom.js";
import { signed } from "./format.js";

const AT_ONCE = 4; // how many curves are read at once
const HOURS = 24;
const HOUR = 3_600_000; // in milliseconds
const FRESH = 60_000; // the shortest pause between two reads of a curve, in milliseconds

/**
 * Return what shows curves in cells.
 *
 * @param {AbortSignal} signal
 * @returns {{watch: function(HTMLElement, function(): object), forget: function(HTMLElement)}}
 *   `watch` shows the curve of a counter in a cell as long as the cell is in sight. Its function
 *   returns the counter. Call it again and again, so that the curve is read again when it is old.
 */
export function curveReader(signal) {
  const counters = new Map(); // a function for each watched cell that returns its counter
  const known = new Map(); // by name: the `hours` that were read, for which `version`, and `when`
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
      const hours = await lastHours(counter, signal);
      known.set(counter.counter_id, { hours, version: counter.version, when: Date.now() });
      show(cell, hours);
    } catch {
      // The cell stays as it is. The next call of `watch` reads the curve again.
    }
  };
  const want = (cell) => {
    const counter = counters.get(cell)();
    const last = known.get(counter.counter_id);
    if (last && !cell.childElementCount) show(cell, last.hours); // a row that is back in sight
    if (!last || !isCurrent(last, counter)) waiting.add(cell);
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

function show(cell, { values }) {
  const total = values.reduce((sum, value) => sum + value, 0);
  replace(cell, curve(values), element("span", {}, total ? signed(total) : "—"));
}

/** Return whether a curve does not have to be read again. */
function isCurrent({ hours, version, when }, counter) {
  if (Date.now() < when + FRESH) return true;
  const isSameHour = Math.floor(when / HOUR) === Math.floor(Date.now() / HOUR);
  // The trend has a change a moment after the counter.
  return isSameHour && version === counter.version && hours.close === counter.value;
}

/** Return how much was added in each of the last hours, and the value at their end. */
async function lastHours(counter, signal) {
  // A counter without a recent change needs no read.
  if (Date.parse(counter.updated_at) < Date.now() - HOURS * HOUR) {
    return { values: Array(HOURS).fill(0), close: counter.value };
  }
  const { body } = await read(`${counterPath(counter.counter_id)}/trend`, { signal });
  const buckets = body.slice(-HOURS);
  return { values: buckets.map((bucket) => Number(bucket.increase)), close: buckets.at(-1).close };
}
