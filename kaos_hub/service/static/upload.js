// Sends a folder from a browser: what the service lacks and nothing else, so that whatever breaks off goes on
// where it was. Knows the API (bundles/sift, bundles/missing, objects, bundles), and nothing of any page.

import { Hasher, digest } from "./blake3.js";

const SLICE = 4 << 20; // bytes of a file that are read at once
const READERS = 4; // files that are read at once
const BATCH_BYTES = 16 << 20; // of one request, unless a file alone has more
const BATCH_FILES = 500;
const ASK = 20000; // entries of one question
const ROUNDS = 3; // times a commit is tried: somebody may delete what was there already
const COMPARED = 5000; // files by which something is told from another thing of its name
const MOST_IGNORE = 1 << 20;
const [PAUSE, LONGEST] = [1000, 30000]; // milliseconds before the next try

const encoder = new TextEncoder();

export class Refused extends Error {}

const STEPS = {
  look: "Looking through the folder",
  read: "Reading",
  send: "Sending",
  wait: "Not connected; trying again. What has arrived is not sent again.",
  finish: "Making a version",
};
const UNITS = ["Ti", "Gi", "Mi", "Ki"];

// How far it is, for people: what `tell` of sendFolder is told.
export function inWords(step, done, total) {
  const amounts = step === "read" || step === "send" ? `: ${inBytes(done)} of ${inBytes(total)}` : "";
  return STEPS[step] + amounts;
}

// A size as all pages say it: 512Mi, 1.5Gi, 87 B, 0.
export function inBytes(bytes) {
  for (const [at, unit] of UNITS.entries()) {
    const amount = bytes / 1024 ** (UNITS.length - at);
    if (amount >= 1) return String(Number(amount.toFixed(2))) + unit;
  }
  return bytes ? `${bytes} B` : "0";
}

// So many of something: 1 file, 1,200 files.
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// The name of a folder, as a bundle may be called.
export function nameOf(folder) {
  const plain = folder.normalize("NFKD").replace(/\p{M}/gu, "").replace(/[^A-Za-z0-9._ -]+/g, "-");
  return plain.replace(/^[^A-Za-z0-9]+/, "").slice(0, 64).replace(/[ ]+$/, "");
}

// A choice of `<input type=file webkitdirectory>`, as the folder's name and [path, File] of all in it.
export function ofInput(list) {
  const files = Array.from(list, (file) => [file.webkitRelativePath.split("/").slice(1).join("/"), file]);
  return { name: list[0]?.webkitRelativePath.split("/")[0] ?? "", files };
}

// What was dropped: one folder, or files that are taken for one.
export async function ofDrop(items) {
  const entries = Array.from(items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 1 && entries[0].isDirectory) {
    return { name: entries[0].name, files: await below(entries[0], "") };
  }
  const files = [];
  for (const entry of entries) files.push(...(await ofEntry(entry, entry.name)));
  return { name: "", files };
}

const promised = (call) => new Promise(call);

async function ofEntry(entry, path) {
  if (entry.isDirectory) return below(entry, path);
  return [[path, await promised((resolve, reject) => entry.file(resolve, reject))]];
}

async function below(folder, path) {
  const files = [];
  const reader = folder.createReader();
  for (;;) {
    // Browsers hand out a hundred at a time.
    const some = await promised((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    for (const entry of some) files.push(...(await ofEntry(entry, path ? `${path}/${entry.name}` : entry.name)));
  }
}

// Makes a version of a folder.
//   files: [path, File] of all in it; kind: "data" or "source"; name: of the bundle
//   api: the API's address, without a slash at the end; headers: what lets us in; query: added to each address
//   tell(step, done, total): called as it goes on; steps are "look", "read", "send", "wait" and "finish"
//   ask(likeness): called where something else of that name is there; promises the name that it gets
//   signal: ends it
// Returns the version, and what was left out: [path, reason].
export async function sendFolder({ files, kind, name, api, headers, query = "", tell = () => {}, ask, signal }) {
  const link = new Link(api, headers, query, tell, signal);
  const inside = kind === "source" ? sourceRoot(files) : files;
  const skipped = await sift(link, inside, kind, tell);
  const kept = inside.filter(([path]) => !isLeftOut(path, skipped));
  if (!kept.length) throw new Refused("There is nothing in the folder that could be sent.");
  const read = await readAll(kept, tell, signal);
  const { root, objects } = treeOf(read);
  const called = await nameFor(link, { kind, name, root }, read, ask);
  for (let round = 0; ; round++) {
    await sendMissing(link, objects, tell);
    tell("finish");
    try {
      const version = await link.ask("POST", "/bundles", { kind, name: called, root });
      return { version, skipped: [...skipped] };
    } catch (error) {
      if (error.code !== "missing_objects" || round === ROUNDS) throw error;
    }
  }
}

// The name that it gets: something that has it, and no file in common, is replaced only if that is wished.
async function nameFor(link, wanted, read, ask) {
  const files = read.filter(([, file]) => file.size).slice(0, COMPARED);
  const digests = Object.fromEntries(files.map(([path, , hex]) => [path, `blake3:${hex}`]));
  const found = await link.ask("POST", "/bundles/likeness", { ...wanted, files: digests });
  return found.alike ? found.name : ask(found);
}

// A source bundle is the folder itself if it holds a Dockerfile, else its only sub-folder that does.
function sourceRoot(files) {
  const folders = files.filter(([path]) => /^[^/]+\/Dockerfile$/.test(path)).map(([path]) => path.split("/")[0]);
  if (files.some(([path]) => path === "Dockerfile") || folders.length !== 1) return files;
  const prefix = `${folders[0]}/`;
  return files.filter(([path]) => path.startsWith(prefix)).map(([path, file]) => [path.slice(prefix.length), file]);
}

async function sift(link, files, kind, tell) {
  const ignores = {};
  for (const [path, file] of files) {
    const last = path.slice(path.lastIndexOf("/") + 1);
    if (last === ".kaosignore" && file.size <= MOST_IGNORE) ignores[path] = await textOf(path, file);
  }
  const skipped = new Map();
  for (let at = 0; at < files.length; at += ASK) {
    tell("look", at, files.length);
    const paths = files.slice(at, at + ASK).map(([path]) => path);
    const answer = await link.ask("POST", "/bundles/sift", { kind, paths, ignores });
    for (const one of answer.skipped) skipped.set(one.path, one.reason);
  }
  return skipped;
}

function isLeftOut(path, skipped) {
  if (skipped.has(path)) return true;
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
    if (skipped.has(path.slice(0, at + 1))) return true;
  }
  return false;
}

async function textOf(path, file) {
  try {
    return await file.text();
  } catch {
    throw unreadable(path);
  }
}

const unreadable = (path) => new Refused(`“${path}” cannot be read, or has changed. Choose the folder again.`);

// The digests of all files: [path, File, digest, executable].
async function readAll(files, tell, signal) {
  const total = files.reduce((sum, [, file]) => sum + file.size, 0);
  const found = new Array(files.length);
  let [next, done] = [0, 0];
  const reader = async () => {
    while (next < files.length) {
      signal?.throwIfAborted();
      const index = next++;
      const [path, file] = files[index];
      const hasher = new Hasher();
      let executable = false;
      for (let at = 0; at < file.size; at += SLICE) {
        signal?.throwIfAborted();
        const bytes = await bytesOf(path, file, at);
        // Browsers do not say whether a file may be executed. What begins like this is meant to be.
        if (!at) executable = bytes[0] === 0x23 && bytes[1] === 0x21;
        hasher.update(bytes);
        done += bytes.length;
        tell("read", done, total);
      }
      found[index] = [path, file, hasher.hex(), executable];
    }
  };
  await Promise.all(Array.from({ length: READERS }, reader));
  return found;
}

async function bytesOf(path, file, at) {
  try {
    return new Uint8Array(await file.slice(at, at + SLICE).arrayBuffer());
  } catch {
    throw unreadable(path);
  }
}

// The listings of all folders, and with the files all that the bundle is made of: digest → Blob or bytes.
function treeOf(read) {
  const objects = new Map();
  const top = new Map();
  for (const [path, file, hex, executable] of read) {
    objects.set(hex, file);
    const parts = path.split("/");
    let folder = top;
    for (const part of parts.slice(0, -1)) {
      if (!(folder.get(part) instanceof Map)) folder.set(part, new Map());
      folder = folder.get(part);
    }
    folder.set(parts.at(-1), { kind: executable ? "x" : "f", hex, size: file.size });
  }
  return { root: `blake3:${listed(top, objects).hex}`, objects };
}

function listed(folder, objects) {
  const rows = Array.from(folder, ([name, entry]) => {
    const row = entry instanceof Map ? { kind: "d", ...listed(entry, objects) } : entry;
    return { ...row, name, bytes: encoder.encode(name) };
  });
  rows.sort((a, b) => inOrder(a.bytes, b.bytes));
  const lines = rows.map(({ kind, hex, size, name }) => `${kind} ${hex} ${size} ${name}\n`);
  const text = encoder.encode(`kaos tree 1\n${lines.join("")}`);
  const hex = digest(text);
  objects.set(hex, text);
  return { hex, size: rows.reduce((sum, row) => sum + row.size, 0) };
}

function inOrder(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

const sizeOf = (content) => content.size ?? content.length;

// Sends what the service lacks; after a break it is asked again, for some may have arrived.
async function sendMissing(link, objects, tell) {
  for (let pause = PAUSE; ; pause = Math.min(pause * 2, LONGEST)) {
    const lacking = await missing(link, objects);
    try {
      return await sendAll(link, objects, lacking, tell);
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      await link.rest(pause);
    }
  }
}

async function missing(link, objects) {
  const lacking = [];
  const all = [...objects];
  for (let at = 0; at < all.length; at += ASK) {
    const part = all.slice(at, at + ASK);
    const asked = Object.fromEntries(part.map(([hex, content]) => [`blake3:${hex}`, sizeOf(content)]));
    const answer = await link.ask("POST", "/bundles/missing", { objects: asked });
    for (const one of answer.missing) lacking.push(one.replace("blake3:", ""));
  }
  return lacking;
}

async function sendAll(link, objects, lacking, tell) {
  const total = lacking.reduce((sum, hex) => sum + sizeOf(objects.get(hex)), 0);
  let done = 0;
  for (const batch of batches(lacking, objects)) {
    const pieces = batch.flatMap((hex) => [`${hex} ${sizeOf(objects.get(hex))}\n`, objects.get(hex)]);
    // The browser reads the files from the disk while it sends; nothing of them is held here.
    const body = new Blob(pieces);
    await link.once("POST", "/objects", body, (sent) => tell("send", Math.min(done + sent, total), total));
    done += batch.reduce((sum, hex) => sum + sizeOf(objects.get(hex)), 0);
  }
}

function* batches(lacking, objects) {
  let [batch, size] = [[], 0];
  for (const hex of lacking) {
    const more = sizeOf(objects.get(hex));
    if (batch.length && (size + more > BATCH_BYTES || batch.length === BATCH_FILES)) {
      yield batch;
      [batch, size] = [[], 0];
    }
    batch.push(hex);
    size += more;
  }
  if (batch.length) yield batch;
}

// The line broke, or a proxy says that nobody is there.
class Broken extends Error {}

class Link {
  constructor(api, headers, query, tell, signal) {
    Object.assign(this, { api, headers, query, tell, signal });
  }

  // A question, repeated until the service answers.
  async ask(method, path, body) {
    for (let pause = PAUSE; ; pause = Math.min(pause * 2, LONGEST)) {
      try {
        return JSON.parse(await this.once(method, path, JSON.stringify(body), () => {}, "application/json"));
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        await this.rest(pause);
      }
    }
  }

  async rest(pause) {
    this.tell("wait");
    await new Promise((resolve) => setTimeout(resolve, pause));
    this.signal?.throwIfAborted();
  }

  async once(method, path, body, onSent, type = "application/octet-stream") {
    this.signal?.throwIfAborted();
    const { status, text } = await this.request(method, path, body, onSent, type);
    if (status >= 200 && status < 300) return text;
    if (!status || status === 429 || (status > 501 && status < 505 && !isOurs(text))) throw new Broken();
    throw refusal(status, text);
  }

  request(method, path, body, onSent, type) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // unlike fetch it says how much was sent
      const stop = () => request.abort();
      request.open(method, this.api + path + this.query);
      for (const [name, value] of Object.entries({ ...this.headers, "Content-Type": type })) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => onSent(event.loaded);
      request.onloadend = () => {
        this.signal?.removeEventListener("abort", stop);
        if (this.signal?.aborted) reject(this.signal.reason);
        else resolve({ status: request.status, text: request.responseText });
      };
      this.signal?.addEventListener("abort", stop);
      request.send(body);
    });
  }
}

function isOurs(text) {
  try {
    return Boolean(JSON.parse(text).code);
  } catch {
    return false;
  }
}

function refusal(status, text) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // not from the service itself
  }
  const message = status === 401 ? "Your session has ended. Reload the page to log in again." : body.message;
  return Object.assign(new Refused(message || `The service answered ${status}.`), { code: body.code });
}
