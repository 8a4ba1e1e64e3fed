// Streams of events that open again after whatever broke them.

export const root = document.getElementById("kaos");

// The XSRF token as the page has it now: it is renewed with the page.
export const xsrf = () => root.dataset.xsrf;

// The service says something every 15 s at least. A proxy may keep a connection whose other end is gone, so
// silence is what tells.
const patience = () => Number(root.dataset.patience || 40000);

const offline = document.getElementById("kaos-offline");

// Reads server-sent events with fetch rather than EventSource: that can send headers (the XSRF token stays out
// of addresses and logs), sees keepalives, and knows why something failed.
async function* events(path, { lastId, signal, onBytes }) {
  const headers = { Accept: "text/event-stream", "X-XSRFToken": xsrf() };
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
export class Stream {
  // awake: whether it goes on although nobody looks, because somebody waits
  constructor(path, handlers, { quiet = false, awake = () => false } = {}) {
    Object.assign(this, { path, handlers, quiet, awake, lastId: "", delay: 1000, over: false });
    this.onVisibility = () => (this.rests() ? this.pause() : this.open());
    document.addEventListener("visibilitychange", this.onVisibility);
    if (!this.rests()) this.open();
  }

  rests() {
    return document.hidden && !this.awake();
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
