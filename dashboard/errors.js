// What can go wrong with a request.

/** The person is not signed in, or no longer. */
export class SignedOutError extends Error {}

/** No answer came. If the request was a change, it may have been made. */
export class NoAnswerError extends Error {}

/** The API's answer is a problem (RFC 9457). */
export class Problem extends Error {
  /**
   * @param {number} status the status of the answer
   * @param {object} body the answer; empty if it is not JSON
   * @param {?number} retryAfter when to send the request again, in seconds
   */
  constructor(status, body, retryAfter = null) {
    super(body.detail ?? `The API answered with the status ${status}.`);
    this.status = status;
    this.kind = (body.type ?? "").replace("urn:tally:problem:", "");
    this.value = body.value; // the counter's value, if a bound refused a change
    this.retryAfter = retryAfter;
  }
}
