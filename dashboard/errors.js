// What can go wrong with a request.

/** The person is not signed in, or no longer. */
export class SignedOutError extends Error {}

/** No answer came. If the request was a change, it may have been made. */
export class NoAnswerError extends Error {}

/** The API's answer is a problem (RFC 9457). */
export class Problem extends Error {
  /**
   * @param {number} status the status of the answer
   * @param {?object} body the answer; null if it is not JSON
   * @param {?number} retryAfter when to send the request again, in seconds
   */
  constructor(status, body, retryAfter = null) {
    super(body?.detail ?? `The API answered with the status ${status}.`);
    this.status = status;
    this.kind = String(body?.type ?? "").replace("urn:tally:problem:", "");
    this.value = body?.value; // the counter's value, if a bound refused a change
    this.retryAfter = retryAfter;
  }
}

/** Return whether a read that failed may succeed a little later. */
export function isTemporary(error) {
  if (error instanceof Problem) return error.status >= 500 || error.status === 429;
  return error instanceof NoAnswerError;
}

/**
 * Return whether an error leaves open whether a change was made. `wasUnknown` of the error says
 * whether an earlier try has left it open.
 */
export function isUnknown(error) {
  if (error.wasUnknown) return true;
  if (error instanceof SignedOutError) return false;
  if (!(error instanceof Problem)) return true; // no answer, or one that the page cannot use
  if (error.kind === "" || error.kind === "in-progress") return true;
  return error.status >= 500 && error.kind !== "throttled";
}
