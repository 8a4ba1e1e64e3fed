// The Hub's spawn form: a folder is sent from there, straight to the service, and then chosen. What lets it in is a
// ticket in the form, for the cookies of the service cannot be used on the Hub's pages. Without this, what was sent
// before can be chosen.

import { inBytes, inWords, nameOf, ofDrop, ofInput, Refused, sendFolder } from "./upload.js";

const MOST_NAMED = 200;
const form = document.getElementById("spawn_form");
const start = form?.querySelector("[type=submit]");
let busy = 0;

class Box {
  constructor(element) {
    this.element = element;
    this.select = document.getElementById(element.dataset.select);
    this.picker = element.querySelector("input[type=file]");
    this.said = element.querySelector("[data-said]");
    this.bar = element.querySelector("progress");
    this.cancel = element.querySelector("[data-cancel]");
    this.leftOut = element.querySelector("details");
    this.running = null;
    this.picker.addEventListener("change", () => this.picker.files.length && this.take(ofInput(this.picker.files)));
    this.cancel.addEventListener("click", () => this.running?.abort());
    for (const kind of ["dragenter", "dragover"]) {
      element.addEventListener(kind, (event) => {
        event.preventDefault();
        element.classList.add("border-primary");
      });
    }
    element.addEventListener("dragleave", (event) => element.contains(event.relatedTarget) || this.calm());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      this.calm();
      ofDrop(event.dataTransfer.items).then(
        (folder) => this.take(folder),
        () => this.say("The folder cannot be read."),
      );
    });
    element.hidden = false;
  }

  calm() {
    this.element.classList.remove("border-primary");
  }

  say(text) {
    this.said.textContent = text;
  }

  tell(step, done, total) {
    this.say(inWords(step, done, total));
    this.bar.hidden = false;
    if (total) Object.assign(this.bar, { max: total, value: done });
    else this.bar.removeAttribute("value");
  }

  async take({ name, files }) {
    if (this.running) return;
    this.running = new AbortController();
    this.leftOut.hidden = true;
    this.cancel.hidden = false;
    this.element.setAttribute("aria-busy", "true");
    start.disabled = ++busy > 0;
    try {
      const { api, ticket, kind } = this.element.dataset;
      this.choose(
        await sendFolder({
          files, kind, name: nameOf(name) || kind, api, headers: { Authorization: `Bearer ${ticket}` },
          tell: (...how) => this.tell(...how), signal: this.running.signal,
        }),
      );
    } catch (error) {
      if (this.running.signal.aborted) this.say("Cancelled. What has arrived is not sent again.");
      else if (error instanceof Refused) this.say(error.message);
      else this.say(`That was not possible: ${error.message}`);
    } finally {
      this.running = null;
      this.bar.hidden = this.cancel.hidden = true;
      this.element.removeAttribute("aria-busy");
      this.picker.value = "";
      start.disabled = --busy > 0;
    }
  }

  choose({ version, skipped }) {
    const value = `${version.name}@v${version.version}`;
    let option = Array.from(this.select.options).find((one) => one.value === value);
    if (!option) {
      option = new Option(`${version.name} v${version.version} · ${version.files} files, ${inBytes(version.size)}`, value);
      this.select.options.add(option, 1);
    }
    this.select.value = value;
    this.select.dispatchEvent(new Event("change", { bubbles: true }));
    this.say(`${version.name} v${version.version} is there, and chosen.`);
    if (this.element.dataset.kind === "source") document.querySelector("[data-empty]")?.remove();
    if (!skipped.length) return;
    const lines = skipped.slice(0, MOST_NAMED).map(([path, reason]) => {
      const line = document.createElement("li");
      line.textContent = reason ? `${path} (${reason})` : path;
      return line;
    });
    this.leftOut.querySelector("summary").textContent = `Left out: ${skipped.length.toLocaleString("en")}`;
    this.leftOut.querySelector("ul").replaceChildren(...lines);
    this.leftOut.hidden = false;
  }
}

for (const element of document.querySelectorAll("[data-upload]")) new Box(element);
window.addEventListener("beforeunload", (event) => busy && event.preventDefault());
