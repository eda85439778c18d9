// Signs people in with authorization code and PKCE (RFC 7636), and keeps the tokens in memory only.

import { NoAnswerError, SignedOutError } from "./errors.js";

const { clientId, signIn } = document.documentElement.dataset;
const PAGE = location.origin + location.pathname;
const PENDING = "tally.sign-in"; // what the page must still know when the browser comes back
const WAS_SIGNED_IN = "tally.signed-in"; // only whether: a reload or a new tab then signs in again
const TIMEOUT = 10_000; // for a request to the sign-in service, in milliseconds
const MARGIN = 60_000; // renew a token this long before it expires, in milliseconds

let tokens = null;
let renewal = null;

/** Return whether there is a token. */
export const isSignedIn = () => tokens !== null;

/** Return the person's name; an empty string if nobody is signed in. */
export const person = () => tokens?.claims.username ?? "";

/** Return whether the person may read any counter. */
export const mayRead = () => (tokens?.claims["tally:read"] ?? "-") !== "-";

/** Return whether an actor of the history is the person. */
export const isMe = (actor) => actor === tokens?.claims.sub;

/**
 * Return whether the person may do something with a counter. The API decides. This answer only
 * spares people buttons that do not work.
 *
 * @param {"read"|"increment"|"set"} right
 * @param {string} counterId
 */
export function may(right, counterId) {
  const claim = tokens?.claims[`tally:${right}`] ?? "-";
  if (claim === "*") return true;
  return claim !== "-" && claim.split(" ").some((prefix) => counterId.startsWith(prefix));
}

/**
 * Finish a sign-in if the browser comes back from the sign-in page. If somebody is signed in in this
 * browser, start another sign-in: the sign-in page remembers the person for an hour.
 *
 * @returns {Promise<string>} what went wrong, in words; an empty string if nothing did
 * @throws {NoAnswerError} if the sign-in service does not answer
 */
export async function start() {
  const query = new URLSearchParams(location.search);
  const stored = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  const pending = JSON.parse(stored);
  const wasSignedIn = localStorage.getItem(WAS_SIGNED_IN) !== null;
  localStorage.removeItem(WAS_SIGNED_IN);
  if (query.has("code") || query.has("error")) {
    history.replaceState(null, "", PAGE + (pending?.view ?? location.hash));
    if (pending === null || query.get("state") !== pending.state) {
      return "This sign-in was not started by this page.";
    }
    if (query.has("error")) return `The sign-in failed: ${query.get("error")}.`;
    return await exchange({
      grant_type: "authorization_code", code: query.get("code"), redirect_uri: PAGE,
      code_verifier: pending.verifier,
    });
  }
  if (wasSignedIn) {
    await openSignIn();
    // The browser leaves this page. If somebody comes back with the Back button, start again.
    window.addEventListener("pageshow", () => location.reload());
    await new Promise(() => {});
  }
  return "";
}

/** Leave this page for the sign-in page, which leads back to the current view. */
export async function openSignIn() {
  const verifier = base64url(crypto.getRandomValues(new Uint8Array(32)));
  const state = base64url(crypto.getRandomValues(new Uint8Array(16)));
  sessionStorage.setItem(PENDING, JSON.stringify({ verifier, state, view: location.hash }));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  location.assign(`${signIn}/oauth2/authorize?` + new URLSearchParams({
    response_type: "code", client_id: clientId, redirect_uri: PAGE, scope: "openid", state,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: "S256",
  }));
}

/** Make the tokens unusable, and leave this page to end the session of the sign-in page. */
export async function signOut() {
  const { refresh } = tokens;
  const pending = renewal;
  forget();
  await pending?.catch(() => {}); // it revokes the token that it gets
  await revoke(refresh);
  const target = new URLSearchParams({ client_id: clientId, logout_uri: PAGE });
  location.assign(`${signIn}/logout?${target}`);
}

async function revoke(token) {
  await post("revoke", { token }).then((response) => response.text()).catch(() => {});
}

/** Send a request to the sign-in service. */
function post(path, parameters) {
  return fetch(`${signIn}/oauth2/${path}`, {
    method: "POST", body: new URLSearchParams({ client_id: clientId, ...parameters }),
    signal: AbortSignal.timeout(TIMEOUT),
  });
}

/**
 * Return an access token that is still valid.
 *
 * @param {string|null} refused a token that the API has refused, so that another one is needed
 * @throws {SignedOutError} if the person must sign in again
 * @throws {NoAnswerError} if the sign-in service does not answer
 */
export async function accessToken(refused = null) {
  if (tokens === null) throw new SignedOutError();
  if (tokens.access === refused || Date.now() > tokens.expires - MARGIN) await renew();
  return tokens.access;
}

function renew() {
  renewal ??= exchange({ grant_type: "refresh_token", refresh_token: tokens.refresh })
    .then((problem) => {
      if (problem) {
        forget();
        throw new SignedOutError();
      }
    })
    .finally(() => { renewal = null; });
  return renewal;
}

function forget() {
  tokens = null;
  localStorage.removeItem(WAS_SIGNED_IN);
}

/** Ask for tokens. Return what went wrong, in words; an empty string if there are new tokens. */
async function exchange(parameters) {
  const before = tokens;
  const response = await post("token", parameters).catch(() => ({ status: 503 }));
  if (response.status >= 500 || response.status === 429) {
    throw new NoAnswerError("The sign-in service does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) return `The sign-in failed: ${answer.error ?? response.status}.`;
  if (typeof answer.access_token !== "string") {
    throw new NoAnswerError("The sign-in service gave an answer without a token.");
  }
  if (tokens !== before) { // the person has signed out meanwhile
    await revoke(answer.refresh_token ?? "");
    throw new SignedOutError();
  }
  tokens = {
    access: answer.access_token,
    // A refresh token is replaced each time that it is used.
    refresh: answer.refresh_token ?? tokens?.refresh,
    expires: Date.now() + answer.expires_in * 1000,
    claims: claimsOf(answer.access_token),
  };
  localStorage.setItem(WAS_SIGNED_IN, "yes");
  return "";
}

function claimsOf(token) {
  const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (each) => each.charCodeAt())));
}

function base64url(bytes) {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
