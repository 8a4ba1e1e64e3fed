// Keeps the pages up to date. Whatever comes over the wire is put in as text, never as HTML, but for our own pages.

import { Log } from "./logs.js";
import { morph } from "./morph.js";
import { root, Stream, xsrf } from "./stream.js";

// --- the live part of a page ---

const liveNow = () => document.getElementById("kaos-live");

let refreshing = false;
let again = false;
let cost = 0; // milliseconds that the last refresh took

// Ask the server for the page again and take over its live part: one template for both ways.
async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  const began = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { "X-XSRFToken": xsrf() } });
    if (answer.status === 404 || answer.redirected) {
      location.reload();
      return;
    }
    if (answer.ok) takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The stream notices as well, and says so.
  } finally {
    refreshing = false;
    cost = Date.now() - began;
    if (again) {
      again = false;
      setTimeout(refresh, 500);
    }
  }
}

// Only what has changed is touched: what is selected stays so, and no click falls into a gap.
function takeOver(page) {
  const fresh = page.getElementById("kaos-live");
  const live = liveNow();
  if (!fresh || !live) return;
  tellTimes(page);
  const trial = live.dataset.trial;
  morph(live, fresh, isTheirs);
  root.dataset.xsrf = page.getElementById("kaos").dataset.xsrf;
  document.title = page.title;
  if (trial !== live.dataset.trial) for (const log of logs) log.goOn();
  goThere();
}

// What people have chosen, opened or are about to choose is theirs. A button that only a script shows is the script's.
function isTheirs(element, attribute) {
  if (!attribute) return element.matches("input[type=checkbox]") || (element === document.activeElement && element.matches("select, input"));
  return (attribute === "open" && element.matches("details")) || (element.matches("[data-tell]") && ["hidden", "aria-pressed"].includes(attribute));
}

function rowOf(name) {
  const live = liveNow();
  if (live.dataset.notebook) return live;
  return [...live.querySelectorAll("tr[data-notebook]")].find((row) => row.dataset.notebook === name);
}

function showProgress(row, event) {
  const bar = row.querySelector("[data-progress]");
  if (bar && !row.dataset.events) {
    bar.setAttribute("aria-valuenow", event.progress);
    bar.firstElementChild.className = bar.firstElementChild.className.replace(
      /kaos-at-\d+/,
      `kaos-at-${Math.floor(event.progress / 5) * 5}`,
    );
  }
  const reason = row.querySelector(row.dataset.events ? "[data-main-reason]" : "[data-reason]");
  if (reason) reason.textContent = event.reason;
}

// A page on which somebody waits follows what happens although they look elsewhere.
const waits = () => Boolean(liveNow().dataset.moving);

function announce(text) {
  const place = document.getElementById("kaos-announce");
  if (place.textContent !== text) place.textContent = text;
}

let lastRefresh = Date.now();
const known = new Map(); // what the streams have said of states so far

// What an event means: is its state news to people, and is the page behind? A page that was fetched a moment ago may have
// come with the state before its event does: people are told all the same. What the page does not list may be on another
// one, or not be looked for: that it rests, as it did before, is no news.
function judge(row, key, state) {
  const before = known.get(key);
  known.set(key, state);
  const moved = before !== undefined && before !== state;
  const stale = row ? row.dataset.shown !== state : moved || (before === undefined && !AT_REST.includes(state));
  return { stale, news: stale || moved };
}

const AT_REST = ["STOPPED", "FAILED", "SUCCEEDED", "CANCELLED"];

function onNotebook(message) {
  const event = JSON.parse(message.data);
  const row = rowOf(event.notebook);
  const { stale, news } = judge(row, event.notebook, event.state);
  if (row) {
    showProgress(row, event);
    row.dataset.shown = event.state;
  }
  if (news) {
    announce(`${event.notebook}: ${event.state}`);
    notify(event.notebook, event.state, event.reason);
    for (const log of logs) log.stateChanged(event.state);
  }
  if (stale) {
    lastRefresh = Date.now();
    refresh();
  } else if (liveNow().dataset.notebook) {
    // A stage's own bar and reason come with the page; progress alone need not fetch it each time.
    refreshSoon();
  }
}

// --- trainings ---

let soon = 0;

// Trials may end many times a second; the page is asked for every two seconds at most, and more seldom if
// it is much work.
function refreshSoon() {
  if (soon) return;
  const pause = Math.max(0, lastRefresh + Math.max(2000, 20 * cost) - Date.now());
  soon = setTimeout(() => {
    soon = 0;
    lastRefresh = Date.now();
    refresh();
  }, pause);
}

function trainingRow(id) {
  const live = liveNow();
  if (live.dataset.training) return live;
  return [...live.querySelectorAll("tr[data-training]")].find((row) => row.dataset.training === id);
}

function onTraining(message) {
  const event = JSON.parse(message.data);
  const row = trainingRow(event.training);
  const { stale, news } = judge(row, event.training, event.state);
  if (row) {
    showProgress(row, event);
    const { total, succeeded, failed, cancelled } = event.trials;
    const ended = row.querySelector("[data-ended]");
    if (ended) ended.textContent = `${(succeeded + failed + cancelled).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    row.dataset.shown = event.state;
  }
  if (news && row) {
    const name = row.querySelector("h1, th a").firstChild.textContent.trim();
    announce(`${name}: ${event.state}`);
    notify(name, event.state, event.reason);
    for (const log of logs) log.stateChanged(event.state);
  }
  if (stale || row?.dataset.events) refreshSoon();
}

// --- those who wait ---

const READY = ["RUNNING", ...AT_REST];

// Tells those who wait for it, and look elsewhere. Whether they want that, they say with a button.
function notify(name, state, reason) {
  if (!document.hidden || !READY.includes(state) || !wanted()) return;
  const shown = new Notification(`${name}: ${state}`, { body: reason, tag: `kaos ${location.pathname}` });
  shown.addEventListener("click", () => window.focus());
}

const wanted = () => window.Notification?.permission === "granted" && sessionStorage.getItem("kaos-tell") === "yes";

function offerToTell() {
  for (const button of document.querySelectorAll("[data-tell]")) {
    button.hidden = !window.Notification || Notification.permission === "denied";
    button.setAttribute("aria-pressed", String(wanted()));
  }
}

async function onTell(event) {
  if (!event.target.closest?.("[data-tell]")) return;
  sessionStorage.setItem("kaos-tell", wanted() ? "no" : "yes");
  if (Notification.permission === "default") await Notification.requestPermission();
  offerToTell();
}

// Who came from a start is taken to what was started, as soon as it answers.
function goThere() {
  const { open, shown } = liveNow().dataset;
  if (open && shown === "RUNNING") location.replace(open);
}

// --- times ---

const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function ago(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ["", 1];
  return unit ? words.format(-Math.floor(seconds / size), unit) : "just now";
}

function until(seconds) {
  if (seconds <= 0) return "now";
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds % 60)];
  if (hours) return `in ${hours} h${minutes ? ` ${minutes} min` : ""}`;
  return minutes >= 5 ? `in ${minutes} min` : `in ${minutes ? `${minutes} min ` : ""}${rest} s`;
}

// Moments as they are here: how long ago, or how soon; on a clock of this place; the whole of it behind the pointer.
function tellTimes(page = document) {
  for (const time of page.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const seconds = (Date.now() - at) / 1000;
    let text = ago(seconds);
    if (time.dataset.kind === "until") text = until(-seconds);
    if (time.dataset.kind === "clock") text = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    if (time.textContent !== text) time.textContent = text;
    const title = at.toLocaleString([], { dateStyle: "medium", timeStyle: "long" });
    if (time.title !== title) time.title = title;
  }
}

function withoutDone(address) {
  const plain = new URL(address);
  for (const name of ["done", "to", "count"]) plain.searchParams.delete(name);
  return plain;
}

// --- begin ---

const logs = [...document.querySelectorAll("details.kaos-log[data-log]")].map((details) => new Log(details));
tellTimes();
// What was just done is told once: not again when the page is loaded again.
if (document.querySelector("[data-notice]")) history.replaceState(null, "", withoutDone(location.href));
if (liveNow()) {
  for (const path of liveNow().dataset.events.split(" ")) {
    new Stream(path, { notebook: onNotebook, training: onTraining }, { awake: waits });
  }
  // What was deleted meanwhile has no event any more.
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  document.addEventListener("click", onTell);
  offerToTell();
  goThere();
  // Seconds are counted only where they are told.
  let beat = 0;
  setInterval(() => document.hidden || (beat++ % 15 && !document.querySelector("[data-kind=until]")) || tellTimes(), 1000);
  // What a trial says of itself is no event: there may be very much of it.
  setInterval(() => liveNow().dataset.running && !document.hidden && refreshSoon(), 5000);
}
