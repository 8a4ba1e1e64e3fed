// The Hub's spawn form. A folder is sent from there, straight to the service, and then chosen. What lets it in is a
// ticket in the form, for the cookies of the service cannot be used on the Hub's pages. Without this, what was sent
// before can be chosen. Also here: the name, what was filled in before a refusal, and a login that has ended.

import { askInto } from "./alike.js";
import { counted, inBytes, inWords, nameOf, ofDrop, ofInput, Refused, sendFolder } from "./upload.js";

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
    const taken = () => this.picker.files.length && this.take(ofInput(this.picker.files));
    this.picker.addEventListener("change", taken);
    this.cancel.addEventListener("click", () => this.running?.abort());
    this.select.addEventListener("change", () => this.settle());
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
    taken(); // of what was chosen before this script was there
  }

  calm() {
    this.element.classList.remove("border-primary");
  }

  // Of a refusal the first line says what is wrong; the rest may be drawn with characters.
  say(text, wrong = false) {
    const [first, ...more] = text.split("\n");
    const line = document.createElement("p");
    line.className = "mb-1 text-break";
    line.textContent = first;
    this.said.className = wrong ? "alert alert-warning mt-2 mb-0" : "";
    this.said.replaceChildren(...(first ? [line] : []));
    if (!more.length) return;
    const rest = document.createElement("pre");
    rest.className = "mb-2";
    rest.textContent = more.join("\n");
    this.said.append(rest);
  }

  // What was meant could not be taken; what was chosen before was not meant. Start waits for a choice.
  chooseAgain(text) {
    this.say(text[0].toUpperCase() + text.slice(1), true);
    this.select.value = "";
    const again = "The folder was not taken. Choose another one, or one of these, or none.";
    this.select.setCustomValidity(again);
    const none = document.createElement("button");
    none.type = "button";
    none.className = "btn btn-sm btn-outline-secondary";
    const what = this.element.dataset.kind === "source" ? "code" : "data";
    const { text: asItIs } = this.select.options[0];
    none.textContent = asItIs === "none" ? `Go on without ${what}` : `Go on with “${asItIs}”`;
    none.addEventListener("click", () => this.settle());
    this.said.append(none);
  }

  settle() {
    this.select.setCustomValidity("");
    if (this.said.classList.contains("alert")) this.say("");
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
      const called = nameOf(name) || kind;
      this.choose(
        await sendFolder({
          files, kind, name: called, api, headers: { Authorization: `Bearer ${ticket}` },
          tell: (...how) => this.tell(...how), signal: this.running.signal,
          ask: (found) => this.ask(called, found),
        }),
      );
    } catch (error) {
      if (this.running.signal.aborted) this.say("Cancelled. What has arrived is not sent again.");
      else if (error instanceof Refused) this.chooseAgain(error.message);
      else this.chooseAgain(`That was not possible: ${error.message}`);
    } finally {
      this.running = null;
      this.bar.hidden = this.cancel.hidden = true;
      this.element.removeAttribute("aria-busy");
      this.picker.value = "";
      start.disabled = --busy > 0;
    }
  }

  async ask(called, found) {
    this.bar.hidden = true;
    this.said.className = "alert alert-warning mt-2 mb-0";
    return askInto(this.said, called, found, this.running.signal);
  }

  choose({ version, skipped }) {
    const value = `${version.name}@v${version.version}`;
    let option = Array.from(this.select.options).find((one) => one.value === value);
    if (!option) {
      const holds = `${counted(version.files, "file")}, ${inBytes(version.size)}`;
      option = new Option(`${version.name} v${version.version} · ${holds}`, value);
      this.select.options.add(option, 1);
    }
    this.select.value = value;
    this.select.dispatchEvent(new Event("change", { bubbles: true }));
    this.say(`${version.name} v${version.version} is there, and chosen.`);
    this.picker.classList.add("kaos-chosen");
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

// --- long lists ---

const LONG = 12; // entries from which on a list can be narrowed

function narrowing(select) {
  const all = Array.from(select.options);
  if (all.length < LONG) return;
  const field = document.createElement("input");
  field.type = "search";
  field.className = "form-control mb-1";
  field.placeholder = `Narrow ${all.length - 1} entries`;
  field.setAttribute("aria-label", `Narrow the list of ${select.labels[0].textContent.toLowerCase()}`);
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const option of select.options) {
      option.hidden = Boolean(option.value) && !option.selected && !option.text.toLowerCase().includes(wanted);
    }
  });
  field.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  select.before(field);
}

// --- the name ---

// A notebook's name is a part of the form's address.
function nameInto(address, name) {
  const [before, after] = address.split("/spawn/");
  const [user] = after.split(/[/?]/);
  const query = address.includes("?") ? `?${address.split("?")[1]}` : "";
  return `${before}/spawn/${user}${name === "default" ? "" : `/${name}`}${query}`;
}

function takeName() {
  form.action = nameInto(form.action, nameField.value.trim() || "default");
  document.querySelector("[data-heading]").textContent = `Start notebook ${nameField.value.trim()}`;
}

const named = form?.querySelector("[data-name]");
const nameField = named?.querySelector("#kaos-name");
const fresh = named?.querySelector("[name=fresh]");

function showName() {
  if (!named) return;
  named.hidden = fresh.disabled;
  nameField.disabled = fresh.disabled;
}

// --- what was filled in ---

const SECRET = ["environment", "_xsrf"];
const KEY = "kaos-form";

// What is kept: the page that the form was on, where it was sent, and what was chosen.
function keep() {
  const chosen = [...new FormData(form)].filter(
    ([name, value]) => typeof value === "string" && !SECRET.includes(name),
  );
  const to = new URL(form.action).pathname;
  sessionStorage.setItem(KEY, JSON.stringify({ page: location.pathname, to, chosen, again: false }));
}

// Whether the user has changed a field since the page came, which may be before this script did.
function touched(field) {
  if (field instanceof RadioNodeList) return [...field].some((each) => each.checked !== each.defaultChecked);
  if (!field.options) return field.value !== field.defaultValue;
  const first = Math.max([...field.options].findIndex((each) => each.defaultSelected), 0);
  return field.selectedIndex !== first;
}

// After a refusal the Hub shows an empty form, or an error from which one comes back: put back what was chosen before.
function putBack() {
  const kept = JSON.parse(sessionStorage.getItem(KEY) || "{}");
  const refused = document.querySelector("[data-refused]") && kept.to === location.pathname;
  if (!refused && !(kept.again && kept.page === location.pathname)) return;
  for (const [name, value] of kept.chosen) {
    if (name === "fresh" && fresh) fresh.disabled = false;
    const field = form.elements[name];
    if (!field || field.value === value || touched(field)) continue;
    field.value = value;
    field.closest?.("details")?.setAttribute("open", "");
  }
  if (nameField?.value && !fresh.disabled) takeName();
}

// --- the login ---

const notSent = form?.querySelector("[data-not-sent]");

// The token of the page's login as it is now; null if there is no login any more. It changes with every login, in other
// tabs, too, and what is sent with an old one is refused.
async function currentToken() {
  const answer = await fetch(`${form.dataset.hub}token`, { redirect: "manual", cache: "no-store" });
  if (answer.type === "opaqueredirect") return null;
  return /xsrf_token: "([^"]+)"/.exec(await answer.text())?.[1];
}

async function send(event) {
  event.preventDefault();
  keep();
  start.disabled = true;
  notSent.hidden = true;
  try {
    const token = await currentToken().catch(() => undefined);
    if (token === null) return tellOfLogin();
    if (token) form.action = form.action.replace(/_xsrf=[^&]*/, `_xsrf=${encodeURIComponent(token)}`);
    form.submit();
  } finally {
    setTimeout(() => (start.disabled = busy > 0), 3000);
  }
}

function tellOfLogin() {
  const link = document.createElement("a");
  link.className = "alert-link";
  link.href = `${form.dataset.hub}login?next=${encodeURIComponent(`${form.dataset.hub}token`)}`;
  link.target = "_blank";
  link.textContent = "Log in again";
  notSent.replaceChildren("Nothing was started: your login has ended. ", link, " in another tab, then press Start. What you filled in stays here.");
  notSent.hidden = false;
  notSent.scrollIntoView({ block: "nearest" });
  start.disabled = false;
}

// --- begin ---

if (form) {
  putBack();
  showName();
  nameField?.addEventListener("input", takeName);
  form.addEventListener("submit", send);
  for (const select of form.querySelectorAll("[data-bundles] select")) narrowing(select);
}
for (const element of document.querySelectorAll("[data-upload]")) new Box(element);
window.addEventListener("beforeunload", (event) => busy && event.preventDefault());
