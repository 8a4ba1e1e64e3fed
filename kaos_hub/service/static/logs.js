// Logs: their end first, and what follows; colours; lines that contain something.

import { Stream, xsrf } from "./stream.js";

const MAX_LINES = 5000; // kept in the page; what was before comes when it is asked for
const MOST_LINES = 50000; // kept at all; the whole log is a link away
const MAX_CHUNK = 500; // lines that are thrown away at once
const TAIL = 512 * 1024; // bytes of a log's end with which it begins
const EARLIER = 256 * 1024; // bytes that come when earlier lines are asked for

const ESCAPE = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// 2026-01-31T12:00:00.123456Z text -> local time, text
function readable(line) {
  const space = line.indexOf(" ");
  const at = space > 18 ? new Date(line.slice(0, space)) : null;
  return at && !isNaN(at) ? `${at.toTimeString().slice(0, 8)} ${line.slice(space + 1)}` : line;
}

const plain = (line) => readable(line).replace(ESCAPE, "");

// The parts of a line, each with the classes that its escape sequences ask for. All but colours and weight is dropped.
function* parts(line) {
  let [at, bold, colour] = [0, false, ""];
  const classes = () => [bold && "kaos-bold", colour && `kaos-ansi-${colour}`].filter(Boolean).join(" ");
  for (const match of line.matchAll(ESCAPE)) {
    if (match.index > at) yield [line.slice(at, match.index), classes()];
    at = match.index + match[0].length;
    const codes = /^\u001b\[([0-9;]*)m$/.exec(match[0])?.[1].split(";").map(Number) ?? [];
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4; // one of 256, or any: not followed
      else if (code === 0) [bold, colour] = [false, ""];
      else if (code === 1) bold = true;
      else if (code === 22) bold = false;
      else if (code === 39) colour = "";
      else if (code >= 30 && code <= 37) colour = COLOURS[code - 30];
      else if (code >= 90 && code <= 97) colour = COLOURS[code - 90];
    }
  }
  if (at < line.length) yield [line.slice(at), classes()];
}

function marked(text, className, tag = "span") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// Lines as nodes: text as far as it is plain, which is cheap, and elements for what has a colour.
function nodesOf(lines) {
  const nodes = [];
  let text = "";
  for (const line of lines.map(readable)) {
    for (const [part, classes] of line.includes("\u001b") ? parts(line) : [[line, ""]]) {
      if (classes) {
        nodes.push(text, marked(part, classes));
        text = "";
      } else text += part;
    }
    text += "\n";
  }
  return [...nodes, text];
}

// The same of lines that were searched for, with what was found marked.
function foundIn(lines, wanted) {
  const nodes = [];
  for (const line of lines.map(plain)) {
    const lower = line.toLowerCase();
    let at = 0;
    for (let next; (next = lower.indexOf(wanted, at)) >= 0; at = next + wanted.length) {
      nodes.push(line.slice(at, next), marked(line.slice(next, next + wanted.length), "", "mark"));
    }
    nodes.push(`${line.slice(at)}\n`);
  }
  return nodes;
}

// The end of a log comes first, and follows what is written; what was before comes piece by piece.
export class Log {
  constructor(details) {
    this.details = details;
    this.lines = details.querySelector("pre");
    this.count = details.querySelector("[data-count]");
    this.earlier = details.querySelector("[data-earlier]");
    this.follow = details.querySelector(".kaos-follow input");
    this.follow.parentElement.hidden = false;
    this.search = details.querySelector("[data-search]");
    this.search.hidden = false;
    this.wanted = "";
    this.search.addEventListener("input", () => this.find(this.search.value.trim().toLowerCase()));
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
    this.kept += lines.length;
    const chunk = { element, lines, size: lines.length, bytes: bytesOf(lines), found: 0 };
    this.paint(chunk);
    return chunk;
  }

  paint(chunk) {
    const { element, lines } = chunk;
    const shown = this.wanted ? lines.filter((line) => plain(line).toLowerCase().includes(this.wanted)) : lines;
    chunk.found = shown.length;
    element.hidden = !shown.length;
    element.replaceChildren(...(this.wanted ? foundIn(shown, this.wanted) : nodesOf(shown)));
  }

  // Only lines that contain something, of those that are here; nothing shows all.
  find(wanted) {
    this.wanted = wanted;
    for (const chunk of this.chunks) this.paint(chunk);
    this.tellCount();
    this.lines.scrollTop = this.lines.scrollHeight;
  }

  tellCount() {
    const lines = `${this.kept.toLocaleString("en")} line${this.kept === 1 ? "" : "s"}`;
    const all = this.first > 0 ? `the last ${lines}` : lines;
    const found = this.chunks.reduce((sum, chunk) => sum + chunk.found, 0);
    this.count.textContent = this.wanted ? `${found.toLocaleString("en")} of ${all}` : all;
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
    const answer = await fetch(this.address(offset), { headers: { "X-XSRFToken": xsrf() } });
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
