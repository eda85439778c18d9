// The first steps with Tally, in JavaScript: adds 1 to a counter, sets the counter, and lists its history.
// It needs Node 18 or later, and no package.
//
//     node docs/first-steps.mjs [FILE]
//
// FILE is a file such as .local/stack.json, which `make run` writes. Without FILE, the program uses
// TALLY_URL, TALLY_TOKEN_URL, TALLY_CLIENT_ID and TALLY_CLIENT_SECRET from the environment. If they are not
// set either, it uses .local/stack.json.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";

const COUNTER = "visits";
const DEADLINE = 30_000; // the longest time for a request and its repeats, in milliseconds

// Returns the settings. They must not send the secret or a token over the network unencrypted.
async function settings(file) {
  const found = await read(file);
  for (const url of [found.url, found.tokenUrl]) {
    const { protocol, hostname } = new URL(url);
    const isThisMachine = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
    if (protocol !== "https:" && !(protocol === "http:" && isThisMachine)) {
      throw new Error(`${url} must begin with https://`);
    }
  }
  return found;
}

async function read(file) {
  const { TALLY_URL, TALLY_TOKEN_URL, TALLY_CLIENT_ID, TALLY_CLIENT_SECRET } = process.env;
  if (TALLY_URL && !file) {
    return { url: TALLY_URL, tokenUrl: TALLY_TOKEN_URL, id: TALLY_CLIENT_ID, secret: TALLY_CLIENT_SECRET };
  }
  const place = file ?? ".local/stack.json";
  const stack = JSON.parse(
    await readFile(place, "utf8").catch(() => {
      throw new Error(`${place} cannot be read: start the local stack with make run, in this directory`);
    }),
  );
  return { url: stack.url, tokenUrl: stack.token_url, id: stack.client_id, secret: stack.client_secret };
}

// Sends a request once. Without a complete answer, the status is 0.
async function sendOnce(url, options, milliseconds) {
  try {
    const signal = AbortSignal.timeout(Math.max(1, milliseconds));
    const response = await fetch(url, { ...options, signal, redirect: "error" });
    const text = await response.text(); // fails if the connection breaks before the end of the answer
    return { status: response.status, after: Number(response.headers.get("Retry-After")) || 0, body: parse(text) };
  } catch (error) {
    return { status: 0, after: 0, body: undefined, reason: error.cause?.message || error.message };
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Sends a request until its outcome is known, and returns the body of the answer.
//
// A repeat sends the same headers and the same body. So use this function only for requests that can be
// repeated: a GET, a POST with an Idempotency-Key, a PUT with If-Match, a request for a token.
async function send(url, options, isExpected) {
  const until = Date.now() + DEADLINE;
  let mayBeApplied = false;
  for (let attempt = 0; ; attempt += 1) {
    const { status, after, body, reason } = await sendOnce(url, options, until - Date.now());
    const isSuccess = status >= 200 && status < 300;
    if (isSuccess && isExpected(body)) return body;
    const isInProgress = status === 409 && body?.type === "urn:tally:problem:in-progress";
    const isTemporary = status === 0 || isSuccess || isInProgress || status === 429 || status >= 500;
    // After a 429, this attempt was certainly not applied.
    mayBeApplied ||= isTemporary && status !== 429;
    const pause = after * 1000 + Math.random() * Math.min(3000, 100 * 2 ** attempt);
    if (!isTemporary || Date.now() + pause >= until) {
      const request = `${options.method ?? "GET"} ${url}: ${status || reason} ${body?.detail ?? ""}`.trimEnd();
      throw new Error(request + (mayBeApplied ? hint(options) : ""));
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Returns what to do about a request that may have been applied. Only a POST with a key and a PUT with a
// condition change a counter.
function hint({ method, headers }) {
  const key = headers["Idempotency-Key"];
  if (key) {
    return ` (an earlier attempt may have been applied: within 24 hours, repeat it with Idempotency-Key: ${key})`;
  }
  return method === "PUT" ? " (an earlier attempt may have been applied: look at the counter)" : "";
}

// Gets a token with client credentials. A token is valid for an hour: a program that runs longer gets
// another one before then.
async function getToken({ tokenUrl, id, secret }) {
  const credentials = [id, secret].map(encodeURIComponent).join(":");
  const headers = { Authorization: `Basic ${Buffer.from(credentials).toString("base64")}` };
  const form = new URLSearchParams({ grant_type: "client_credentials" });
  const isToken = (body) => typeof body?.access_token === "string";
  return (await send(tokenUrl, { method: "POST", headers, body: form }, isToken)).access_token;
}

const { url, ...client } = await settings(process.argv[2]);
const Authorization = `Bearer ${await getToken(client)}`;
const path = `${url}/counters/${COUNTER}`;
const isCounter = (body) => body?.counter_id === COUNTER && Number.isSafeInteger(body.version);

// Add 1. The key identifies the change, so the counter counts it once, however often it is sent. If your
// program can end before it has an answer, store the key with the thing that you count.
const key = randomUUID();
const increment = { method: "POST", headers: { Authorization, "Idempotency-Key": key }, body: '{"by": 1}' };
const added = await send(path, increment, isCounter);
console.log(`${added.counter_id}: ${added.value} (version ${added.version})`);

// Set the counter to 10, if nobody has changed it since. If an answer is lost, the repeat can get a 412,
// because the first attempt was applied. Then look at the counter.
const set = { method: "PUT", headers: { Authorization, "If-Match": `"${added.version}"` }, body: '{"value": 10}' };
const changed = await send(path, set, isCounter);
console.log(`${changed.counter_id}: ${changed.value} (version ${changed.version})`);

// List both changes. They appear in the history a moment later, so ask until they are there.
const page = `${path}/history?after=${added.version - 1}&limit=2`;
const history = await send(page, { headers: { Authorization } }, (body) => body?.length === 2);
for (const entry of history) {
  console.log(`version ${entry.version}: ${entry.operation} ${entry.previous_value} → ${entry.value}`);
}
