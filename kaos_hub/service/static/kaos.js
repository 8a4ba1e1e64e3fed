// Keeps the pages up to date. Whatever comes over the wire is put in as text, never as HTML.

const root = document.getElementById("kaos");
const xsrf = root ? root.dataset.xsrf : "";

const MAX_LINES = 5000; // kept in the page; what was before comes when it is asked for
const MOST_LINES = 50000; // kept at all; the whole log is a link away
const MAX_CHUNK = 500; // lines that are thrown away at once
const TAIL = 512 * 1024; // bytes of a log's end with which it begins
const EARLIER = 256 * 1024; // bytes that come when earlier lines are asked for

// The service says something every 15 s at least. A proxy may keep a connection whose other end is gone, so
// silence is what tells.
const patience = () => Number(root.dataset.patience || 40000);

const offline = document.getElementById("kaos-offline");

// Reads server-sent events with fetch rather than EventSource: that can send headers (the XSRF token stays out
// of addresses and logs), sees keepalives, and knows why something failed.
async function* events(path, { lastId, signal, onBytes }) {
  const headers = { Accept: "text/event-stream", "X-XSRFToken": xsrf };
  if (lastId) headers["Last-Event-ID"] = lastId;
  const answer = await fetch(path, { headers, signal, cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error(answer.statusText), { status: answer.status });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = { id: "", event: "message", data: [] };
      for (const line of part.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon < 1) continue; // a comment: a keepalive
        const [name, text] = [line.slice(0, colon), line.slice(colon + 2)];
        if (name === "data") event.data.push(text);
        else event[name] = text;
      }
      if (event.data.length) yield { ...event, data: event.data.join("\n") };
    }
  }
}

// A stream that opens again after whatever broke it, goes on where it was, and rests while nobody looks.
class Stream {
  constructor(path, handlers, { quiet = false } = {}) {
    Object.assign(this, { path, handlers, quiet, lastId: "", delay: 1000, over: false });
    this.onVisibility = () => (document.hidden ? this.pause() : this.open());
    document.addEventListener("visibilitychange", this.onVisibility);
    if (!document.hidden) this.open();
  }

  async open() {
    if (this.over || this.abort) return;
    clearTimeout(this.timer);
    const abort = (this.abort = new AbortController());
    let heard = Date.now();
    const watch = setInterval(() => Date.now() - heard > patience() && abort.abort(), 1000);
    const onBytes = () => {
      heard = Date.now();
      this.delay = 1000;
      if (!this.quiet) offline.hidden = true;
    };
    let status = 0;
    try {
      for await (const event of events(this.path, { lastId: this.lastId, signal: abort.signal, onBytes })) {
        this.lastId = event.id || this.lastId;
        this.handlers[event.event]?.(event);
      }
    } catch (error) {
      status = error.status ?? 0;
    } finally {
      clearInterval(watch);
    }
    if (this.abort !== abort) return; // paused or closed on purpose
    this.abort = null;
    this.broken(status);
  }

  broken(status) {
    if (this.over) return;
    if (status === 404) return this.close(); // nothing there (yet)
    if (status === 401 && !this.quiet) return location.reload(); // the session ended: log in again
    if (!this.quiet) offline.hidden = false;
    this.timer = setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(this.delay * 2, 30000);
  }

  pause() {
    clearTimeout(this.timer);
    const abort = this.abort;
    this.abort = null;
    abort?.abort();
  }

  close() {
    this.over = true;
    this.pause();
    document.removeEventListener("visibilitychange", this.onVisibility);
  }
}

// --- the live part of a page ---

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
    const answer = await fetch(location.href, { headers: { "X-XSRFToken": xsrf } });
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

function takeOver(page) {
  const fresh = page.getElementById("kaos-live");
  const live = document.getElementById("kaos-live");
  if (!fresh || !live) return;
  // Somebody is choosing something: what comes next brings this as well.
  if (live.contains(document.activeElement) && document.activeElement.matches("select, input")) return;
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...live.querySelectorAll("details[open][id]")].map((details) => details.id);
  const trial = live.dataset.trial;
  live.replaceChildren(...fresh.childNodes);
  for (const [name, value] of Object.entries(fresh.dataset)) live.dataset[name] = value;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  if (trial !== live.dataset.trial) for (const log of logs) log.goOn();
  tellAges();
}

function rowOf(name) {
  const live = document.getElementById("kaos-live");
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
    for (const log of logs) log.stateChanged(event.state);
  }
  if (stale) {
    lastRefresh = Date.now();
    refresh();
  } else if (document.getElementById("kaos-live").dataset.notebook) {
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
  const live = document.getElementById("kaos-live");
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
    announce(`${row.querySelector("h1, th a").firstChild.textContent.trim()}: ${event.state}`);
    for (const log of logs) log.stateChanged(event.state);
  }
  if (stale || row?.dataset.events) refreshSoon();
}

// --- logs ---

const ANSI = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

function readable(line) {
  // 2026-01-31T12:00:00.123456Z text -> local time, text
  const space = line.indexOf(" ");
  const at = space > 18 ? new Date(line.slice(0, space)) : null;
  const text = line.slice(space + 1).replace(ANSI, "");
  return at && !isNaN(at) ? `${at.toTimeString().slice(0, 8)} ${text}` : line.replace(ANSI, "");
}

// The end of a log comes first, and follows what is written; what was before comes piece by piece.
class Log {
  constructor(details) {
    this.details = details;
    this.lines = details.querySelector("pre");
    this.count = details.querySelector("[data-count]");
    this.earlier = details.querySelector("[data-earlier]");
    this.follow = details.querySelector(".kaos-follow input");
    this.follow.parentElement.hidden = false;
    this.forget();
    details.addEventListener("toggle", () => (details.open ? this.open() : this.close()));
    this.earlier.addEventListener("click", () => this.loadEarlier());
    this.lines.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.lines;
      if (scrollHeight - scrollTop - clientHeight < 8) this.follow.checked = true;
      else if (scrollTop < this.lastTop) this.follow.checked = false;
      this.lastTop = scrollTop;
    });
    if (details.open) this.open();
  }

  forget() {
    this.lines.replaceChildren();
    // first and offset: where in the log the lines shown begin, and end
    Object.assign(this, { waiting: [], chunks: [], kept: 0, most: MAX_LINES, first: 0, offset: -TAIL });
    this.earlier.hidden = true;
  }

  address(offset) {
    const address = new URL(this.details.dataset.log, location.href);
    address.searchParams.set("offset", offset);
    return address.pathname + address.search;
  }

  open() {
    if (this.stream) return;
    const handlers = {
      from: (event) => (this.first = Number(event.data)),
      log: (event) => this.take(event),
      end: () => this.close(),
      error: () => this.close(),
    };
    this.stream = new Stream(this.address(this.offset), handlers, { quiet: true });
  }

  close() {
    if (this.stream) this.stream.close();
    this.stream = null;
  }

  // What had not begun, or had to begin again, writes now.
  goOn() {
    this.close();
    if (this.details.open) this.open();
  }

  // A new build or start writes a new log.
  stateChanged(state) {
    const begins = { build: ["QUEUED", "BUILDING"], host: ["STARTING"], ingest: ["INGESTING"] }[this.details.dataset.stage];
    if (!begins?.includes(state)) return;
    this.close();
    this.forget();
    if (this.details.open) this.open();
  }

  take(event) {
    this.offset = Number(event.id);
    for (const line of event.data.split("\n")) this.waiting.push(line);
    if (!this.drawing) this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = null;
    while (this.waiting.length) {
      const chunk = this.chunkOf(this.waiting.splice(0, MAX_CHUNK));
      this.lines.append(chunk.element);
      this.chunks.push(chunk);
    }
    while (this.chunks.length > 1 && this.kept - this.chunks[0].size >= this.most) {
      const { element, size, bytes } = this.chunks.shift();
      element.remove();
      this.kept -= size;
      this.first += bytes;
    }
    this.tellCount();
    if (this.follow.checked) this.lines.scrollTop = this.lines.scrollHeight;
  }

  // Lines as an element of their own: those out of sight cost the browser next to nothing.
  chunkOf(lines) {
    const element = document.createElement("span");
    element.className = "kaos-chunk";
    element.textContent = lines.map(readable).join("\n") + "\n";
    this.kept += lines.length;
    return { element, size: lines.length, bytes: bytesOf(lines) };
  }

  tellCount() {
    const lines = `${this.kept.toLocaleString("en")} line${this.kept === 1 ? "" : "s"}`;
    this.count.textContent = this.first > 0 ? `the last ${lines}` : lines;
    this.earlier.hidden = this.first <= 0 || this.kept >= MOST_LINES;
  }

  async loadEarlier() {
    const from = Math.max(0, this.first - EARLIER);
    this.earlier.disabled = true;
    try {
      const text = await this.read(from, this.first - from);
      // What begins in the middle of a line belongs to the piece before.
      const cut = from ? text.indexOf("\n") + 1 : 0;
      const lines = text.slice(cut).split("\n").slice(0, -1);
      if (!lines.length) this.first = 0;
      else this.prepend(lines);
    } catch {
      // Not connected: the button stays.
    } finally {
      this.earlier.disabled = false;
    }
  }

  prepend(lines) {
    const chunks = [];
    for (let at = 0; at < lines.length; at += MAX_CHUNK) chunks.push(this.chunkOf(lines.slice(at, at + MAX_CHUNK)));
    const { scrollHeight } = this.lines;
    // Who followed the end wants to see where what was there began.
    const scrollTop = this.follow.checked ? 0 : this.lines.scrollTop;
    this.follow.checked = false;
    this.lines.prepend(...chunks.map((chunk) => chunk.element));
    this.chunks.unshift(...chunks);
    this.first -= bytesOf(lines);
    this.most = Math.max(this.most, this.kept);
    this.tellCount();
    this.lines.scrollTop = scrollTop + this.lines.scrollHeight - scrollHeight;
    this.lines.focus({ preventScroll: true });
  }

  // So many bytes of the log, as text.
  async read(offset, size) {
    const answer = await fetch(this.address(offset), { headers: { "X-XSRFToken": xsrf } });
    if (!answer.ok) throw new Error(answer.statusText);
    const reader = answer.body.getReader();
    const bytes = new Uint8Array(size);
    for (let filled = 0; filled < size; ) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes.set(value.subarray(0, size - filled), filled);
      filled += value.length;
    }
    reader.cancel();
    return new TextDecoder().decode(bytes);
  }
}

const encoder = new TextEncoder();

// Bytes of lines as they stand in the log.
const bytesOf = (lines) => lines.reduce((sum, line) => sum + encoder.encode(line).length + 1, 0);

// --- ages ---

const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function tellAges() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const seconds = (Date.now() - at) / 1000;
    const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ["", 1];
    time.textContent = unit ? words.format(-Math.floor(seconds / size), unit) : "just now";
    time.title = at.toLocaleString();
  }
}

// --- begin ---

const logs = [...document.querySelectorAll("details.kaos-log[data-log]")].map((details) => new Log(details));
const live = document.getElementById("kaos-live");
if (live) {
  for (const path of live.dataset.events.split(" ")) new Stream(path, { notebook: onNotebook, training: onTraining });
  // What was deleted meanwhile has no event any more.
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  tellAges();
  setInterval(tellAges, 30000);
  // What a trial says of itself is no event: there may be very much of it.
  setInterval(() => live.dataset.running && !document.hidden && refreshSoon(), 5000);
}
