// Sends requests to the API, which serves this page, too.

import { NoAnswerError, Problem, SignedOutError, isUnknown } from "./errors.js";
import { accessToken } from "./session.js";

const BASE = location.origin + location.pathname;
const TRIES = 3; // how often a request is sent before its problem is shown
const LONGEST_PAUSE = 10; // in seconds, whatever Retry-After says
// API Gateway gives up after 29 seconds.
const TIMEOUT = 35_000; // in milliseconds

/**
 * Read from the API. A read that was throttled is sent again.
 *
 * @param {string} path the path, such as `counters/visits/trend`
 * @param {object} options
 *   `query`: the query parameters; those that are null are left out
 *   `known`: the ETag that is already known
 *   `signal`: an AbortSignal
 * @returns {Promise<{body, etag: ?string, next: ?object}>} `body` is null if the answer is the one
 *   that is already known. `next` has the query parameters of the next page.
 * @throws {Problem|NoAnswerError|SignedOutError}
 */
export async function read(path, { query = {}, known = null, signal } = {}) {
  const headers = known === null ? {} : { "If-None-Match": known };
  for (let tries = 1; ; tries++) {
    try {
      return await send("GET", path, { query, headers, signal });
    } catch (error) {
      if (!(error instanceof Problem && error.retryAfter) || tries === TRIES) throw error;
      await sleep(pauseOf(error), signal);
    }
  }
}

/**
 * Add to a counter. With the same key, the addition is made only once, however often it is sent.
 * So if no answer comes, it is sent again.
 *
 * @param {string} counterId
 * @param {object} body `by`, and perhaps `min` and `max`
 * @param {string} key the idempotency key
 * @param {boolean} wasUnknown whether an earlier request with this key has left open whether the
 *   addition was made. Then an answer such as 429 does not mean that it was not made.
 * @throws {Problem|NoAnswerError|SignedOutError}
 */
export async function increment(counterId, body, key, wasUnknown = false) {
  for (let tries = 1; ; tries++) {
    try {
      return await send("POST", counterPath(counterId), {
        body, headers: { "Idempotency-Key": key },
      });
    } catch (error) {
      const isAgain = isUnknown(error) || error.retryAfter;
      wasUnknown ||= isUnknown(error);
      // These two answers are about all requests with the key.
      const isVerdict = ["bound-exceeded", "idempotency-key-reused"].includes(error.kind);
      error.wasUnknown = wasUnknown && !isVerdict;
      if (!isAgain || tries === TRIES) throw error;
      await sleep(pauseOf(error));
    }
  }
}

/**
 * Set a counter, if nobody has changed it since its ETag was read. So a repeat changes nothing.
 *
 * @throws {Problem|NoAnswerError|SignedOutError}
 */
export function set(counterId, value, etag) {
  const condition = etag === '"0"' ? { "If-None-Match": "*" } : { "If-Match": etag };
  return send("PUT", counterPath(counterId), { body: { value }, headers: condition });
}

/** Return the path of a counter. */
export const counterPath = (counterId) => `counters/${encodeURIComponent(counterId)}`;

/** Wait. Throws the signal's reason if the signal is aborted before or meanwhile. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Return how long to wait before a request is sent again, in milliseconds. */
const pauseOf = (error) => Math.min(error.retryAfter ?? 1, LONGEST_PAUSE) * 1000;

async function send(method, path, { query = {}, headers = {}, body, signal }, refused = null) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) {
      if (each !== null && each !== undefined) url.searchParams.append(name, each);
    }
  }
  let token;
  let response;
  try {
    token = await accessToken(refused);
    response = await fetch(url, {
      method, signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT), ...(signal ? [signal] : [])]),
      cache: "no-store", headers: { ...headers, Authorization: token },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error instanceof SignedOutError || signal?.aborted) throw error;
    throw new NoAnswerError("The API does not answer.");
  }
  if (response.status === 401) {
    // A token that was issued just now is valid. So it lacks the scope of the request.
    if (refused !== null) throw new Problem(401, { type: "forbidden" });
    return send(method, path, { query, headers, body, signal }, token);
  }
  const answer = response.status === 304 ? null : await parsed(response, signal);
  if (!response.ok && response.status !== 304) {
    const retryAfter = Number(response.headers.get("Retry-After")) || null;
    throw new Problem(response.status, answer, retryAfter);
  }
  return { body: answer, etag: response.headers.get("ETag"), next: nextPage(response) };
}

async function parsed(response, signal) {
  try {
    return JSON.parse(await response.text(), exactly);
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response.ok) throw new NoAnswerError("The API's answer was cut off.");
    return null;
  }
}

/** Keep all digits of an integer that is too large for a number. Sums can be that large. */
function exactly(_key, value, { source }) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value);
  return isRounded ? BigInt(source) : value;
}

function nextPage(response) {
  const link = /^<\?(.*)>; rel="next"$/.exec(response.headers.get("Link") ?? "");
  return link && Object.fromEntries(new URLSearchParams(link[1]));
}
