// Starts the page: signs in, and shows the view that the URL names.

import { compareView } from "./compare.js";
import { counterView } from "./counter.js";
import { button, element, replace } from "./dom.js";
import { isUtc, ownZone, showTimesAgain, useUtc } from "./format.js";
import { listView } from "./list.js";
import { emptyBox, errorBox } from "./messages.js";
import { current } from "./route.js";
import { isSignedIn, mayRead, openSignIn, person, signOut, start } from "./session.js";
import { keepTimes } from "./time_field.js";

const VIEWS = { list: listView, counter: counterView, compare: compareView };
const THEMES = { auto: "light", light: "dark", dark: "auto" }; // each theme and the next one

const view = document.getElementById("view");
let shown = new AbortController(); // aborted when the view is left

/** Show the view that the URL names. `message` says why nobody is signed in. */
function show(message = "") {
  shown.abort();
  shown = new AbortController();
  document.getElementById("connection").hidden = true;
  document.getElementById("person").textContent = person();
  document.getElementById("sign-out").hidden = !isSignedIn();
  if (!isSignedIn()) {
    document.title = "Sign in · Tally";
    replace(view, welcome(message));
    return;
  }
  if (!mayRead()) {
    document.title = "Tally";
    replace(view, emptyBox(element("p", {}, "Your account may not read any counter yet. Ask the"
      + " people who run Tally to put you into a group.")));
    return;
  }
  const { name, counterId, query } = current();
  const { title, node } = VIEWS[name]({ counterId, query, signal: shown.signal });
  document.title = `${title} · Tally`;
  replace(view, node);
}

function welcome(message) {
  return element("section", { class: "welcome" },
    element("h1", {}, "Counters that you can trust"),
    message ? element("p", { class: "message error", role: "alert" }, message) : null,
    element("p", {}, "Sign in to see your counters, their trends and their history."),
    button("Sign in", openSignIn, { class: "primary" }));
}

function showZone() {
  const [zone, other] = isUtc() ? ["UTC", ownZone()] : [ownZone(), "UTC"];
  const control = document.getElementById("zone");
  control.textContent = isUtc() ? "UTC" : "Local time";
  control.title = `Times are in ${zone}. Click to show them in ${other}.`;
}

function showTheme() {
  const { theme } = document.documentElement.dataset;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

document.getElementById("zone").addEventListener("click", () => {
  keepTimes(() => useUtc(!isUtc()));
  showZone();
  showTimesAgain();
  document.dispatchEvent(new Event("redraw"));
});
document.getElementById("theme").addEventListener("click", () => {
  const theme = THEMES[document.documentElement.dataset.theme];
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("tally.theme", theme);
  showTheme();
  document.dispatchEvent(new Event("redraw"));
});
document.getElementById("sign-out").addEventListener("click", () => {
  signOut();
  show("You are signed out.");
  view.focus();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});
document.addEventListener("signedout", () => show("Your session has ended. Sign in again."));
window.addEventListener("hashchange", () => {
  show();
  view.focus({ preventScroll: true });
  scrollTo(0, 0);
});

showZone();
showTheme();
try {
  show(await start());
} catch (error) {
  replace(view, errorBox(error, () => location.reload()));
}
