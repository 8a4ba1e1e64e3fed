// The part of the upload page that takes a folder: chosen, or dropped. Without it the page takes an archive.

import { askInto } from "./alike.js";
import { counted, inWords, nameOf, ofDrop, ofInput, Refused, sendFolder } from "./upload.js";

const form = document.getElementById("kaos-upload");
const box = document.getElementById("kaos-folder");
const picker = document.getElementById("folder");
const said = document.getElementById("folder-said");
const bar = document.getElementById("folder-progress");
const cancel = document.getElementById("folder-cancel");
const result = document.getElementById("folder-result");
const leftOut = document.getElementById("folder-skipped");

const MOST_NAMED = 200;

let running = null;

function tell(step, done, total) {
  said.textContent = inWords(step, done, total);
  bar.hidden = false;
  if (total) Object.assign(bar, { max: total, value: done });
  else bar.removeAttribute("value");
}

async function take(folder) {
  if (running) return;
  const name = form.elements.name.value.trim() || nameOf(folder.name);
  if (!name) return fail("Say how it is to be called, above.", form.elements.name);
  if (!form.elements.name.checkValidity()) return form.elements.name.reportValidity();
  running = new AbortController();
  cancel.hidden = false;
  result.hidden = leftOut.hidden = true;
  box.setAttribute("aria-busy", "true");
  try {
    const done = await sendFolder({
      files: folder.files, kind: form.elements.kind.value, name, api: box.dataset.api, query: box.dataset.query,
      headers: { "X-XSRFToken": form.elements._xsrf.value }, tell, signal: running.signal,
      ask: (found) => question(name, found),
    });
    show(done);
  } catch (error) {
    if (running.signal.aborted) fail("Cancelled. What has arrived is not sent again.");
    else if (error instanceof Refused) fail(error.message);
    else fail(`That was not possible: ${error.message}`);
  } finally {
    running = null;
    cancel.hidden = true;
    box.removeAttribute("aria-busy");
    picker.value = "";
  }
}

async function question(name, found) {
  said.textContent = "";
  bar.hidden = true;
  result.className = "alert alert-warning kaos-wrap";
  result.hidden = false;
  try {
    return await askInto(result, name, found, running.signal);
  } finally {
    result.hidden = true;
  }
}

function fail(text, focus) {
  said.textContent = "";
  bar.hidden = true;
  result.className = "alert alert-warning kaos-wrap";
  result.textContent = text;
  result.hidden = false;
  (focus ?? result).focus();
}

function show({ version, skipped }) {
  said.textContent = "";
  bar.hidden = true;
  const link = document.createElement("a");
  link.id = "made";
  link.href = `${box.dataset.bundles}/${version.kind}/${encodeURIComponent(version.name)}/${version.version}${box.dataset.query}`;
  link.textContent = `${version.name} v${version.version}`;
  result.className = "alert alert-success";
  result.replaceChildren(link, ` is there: ${counted(version.files, "file")}.`);
  result.hidden = false;
  result.focus();
  if (!skipped.length) return;
  const lines = skipped.slice(0, MOST_NAMED).map(([path, reason]) => {
    const line = document.createElement("li");
    line.textContent = `${path} (${reason})`;
    return line;
  });
  leftOut.querySelector("summary").textContent = `Left out: ${skipped.length.toLocaleString("en")}`;
  leftOut.querySelector("ul").replaceChildren(...lines);
  leftOut.hidden = false;
}

const guarded = (work) => work.catch(() => fail("The folder cannot be read."));

const taken = () => picker.files.length && take(ofInput(picker.files));
picker.addEventListener("change", taken);
cancel.addEventListener("click", () => running?.abort());
for (const kind of ["dragenter", "dragover"]) {
  box.addEventListener(kind, (event) => {
    event.preventDefault();
    box.classList.add("kaos-over");
  });
}
box.addEventListener("dragleave", (event) => box.contains(event.relatedTarget) || box.classList.remove("kaos-over"));
box.addEventListener("drop", (event) => {
  event.preventDefault();
  box.classList.remove("kaos-over");
  guarded(ofDrop(event.dataTransfer.items).then(take));
});
window.addEventListener("beforeunload", (event) => running && event.preventDefault());
box.hidden = false;
taken(); // of what was chosen before this script was there
