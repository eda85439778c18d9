// Repeats a read while somebody may look at the result.

import { sleep } from "./api.js";
import { lost, restored } from "./connection.js";
import { SignedOutError, isTemporary } from "./errors.js";

const HIDDEN = 60_000; // milliseconds between two reads while the tab is hidden
const AFTER_FAILURE = 5_000; // milliseconds after a read that failed

/**
 * Read again and again, until the signal is aborted.
 *
 * @param {function(): Promise<number>} work reads once. Returns how long to wait for the next
 *   time, in milliseconds.
 * @param {AbortSignal} signal
 * @param {function(Error)} refused called if another read would fail, too. The reading ends.
 * @returns {function()} a function that reads at once
 */
export function poll(work, signal, refused) {
  let wake = () => {};
  const loop = async () => {
    while (!signal.aborted) {
      let pause = AFTER_FAILURE;
      const asked = new Promise((resolve) => { wake = resolve; });
      try {
        pause = await work();
        restored();
      } catch (error) {
        if (signal.aborted) return;
        if (!isTemporary(error) && !(error instanceof SignedOutError)) {
          refused(error);
          return;
        }
        lost(error);
      }
      const wait = document.hidden ? Math.max(pause, HIDDEN) : pause;
      await Promise.race([sleep(wait, signal).catch(() => {}), asked]);
    }
  };
  document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
  window.addEventListener("online", () => wake(), { signal });
  loop();
  return () => wake();
}

/** Return a function that calls `work`, but at most once in `pause` milliseconds. */
export function atMostEvery(pause, work, signal) {
  let timer = null;
  let last = -Infinity;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      last = Date.now();
      work();
    }, Math.max(0, last + pause - Date.now()));
  };
}
