// Shows whether Tally answers.

import { SignedOutError } from "./errors.js";
import { inWords } from "./messages.js";

const line = document.getElementById("connection");

/** Tally has answered. */
export function restored() {
  line.hidden = true;
}

/** A request failed that the page will send again by itself. */
export function lost(error) {
  if (error instanceof SignedOutError) {
    document.dispatchEvent(new Event("signedout"));
    return;
  }
  line.textContent = `${inWords(error)} This page tries again by itself.`;
  line.hidden = false;
}
