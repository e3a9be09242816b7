// What makes the pages livelier: parts that follow what happens, keys, copying. Every page works without it.

const QUIET_MS = 5000; // between two looks where events do not come through
const QUIET_AFTER = 2; // so many cuts without a part between them
const CHORD_MS = 1200; // how long after `g` the second key counts

// ----- parts that follow what happens ---------------------------------------------------------------------

/** Put HTML in the place of the element of that id; what its user opened, ticked or focused stays so. */
function swap(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  const made = document.createElement("template");
  made.innerHTML = html.trim();
  const fresh = made.content.firstElementChild;
  if (!fresh) return;
  const opened = [...old.querySelectorAll("details")].map((each) => each.open);
  fresh.querySelectorAll("details").forEach((each, at) => { if (at < opened.length) each.open = opened[at]; });
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((each) => each.value));
  fresh.querySelectorAll("input[type=checkbox]").forEach((each) => { each.checked = ticked.has(each.value); });
  const at = old.contains(document.activeElement) ? place(document.activeElement) : null;
  const scrolled = old.querySelector(".wide")?.scrollLeft;
  old.replaceWith(fresh);
  if (scrolled) fresh.querySelector(".wide").scrollLeft = scrolled;
  if (at) fresh.querySelector(at)?.focus({ preventScroll: true });
}

/** A selector of this element among its part's. */
function place(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  for (const name of ["href", "value", "name", "formaction"]) {
    if (element.hasAttribute(name)) return `${element.localName}[${name}="${CSS.escape(element.getAttribute(name))}"]`;
  }
  return null;
}

/** Follows the page's parts by events, or by looking where those do not come through; rests while nobody sees it. */
class Live {
  constructor(url) {
    this.url = url;
    this.over = false;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.start()));
    addEventListener("pagehide", () => this.rest());
    if (!document.hidden) this.start();
  }

  start() {
    if (this.over || this.events || this.timer) return;
    if (this.failures > QUIET_AFTER || !("EventSource" in window)) return void this.look();
    this.events = new EventSource(this.url);
    this.events.addEventListener("parts", (event) => {
      this.failures = 0;
      this.show(JSON.parse(event.data));
    });
    this.events.addEventListener("over", () => this.end());
    this.events.addEventListener("error", () => {
      this.say("waiting");
      // Refused, the browser does not ask for events again; cut off, it does.
      this.failures = this.events?.readyState === EventSource.CLOSED ? QUIET_AFTER + 1 : this.failures + 1;
      if (this.failures > QUIET_AFTER) { this.rest(); this.look(); }
    });
  }

  async look() {
    this.timer = setTimeout(() => { this.timer = null; this.look(); }, QUIET_MS);
    try {
      const answer = await fetch(this.url, { headers: { Accept: "application/json" } });
      if (answer.status === 404) return this.end();
      if (answer.ok) this.show(await answer.json());
      else this.say("waiting");
    } catch {
      this.say("waiting");
    }
  }

  show(parts) {
    this.say("live");
    Object.entries(parts).forEach(([id, html]) => swap(id, html));
  }

  rest() {
    this.events?.close();
    this.events = null;
    clearTimeout(this.timer);
    this.timer = null;
  }

  end() {
    this.over = true;
    this.rest();
    this.say("over");
  }

  say(state) {
    const pulse = document.querySelector("[data-pulse]");
    if (pulse && pulse.textContent !== state) { pulse.textContent = state; pulse.dataset.pulse = state; }
  }
}

const live = document.body.dataset.live;
if (live) new Live(live);

// ----- keys -----------------------------------------------------------------------------------------------

let chord = "";
let chordTimer;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  if (event.key === "?") return void document.getElementById("keys-help").showModal();
  if (document.querySelector("dialog[open]")) return;
  const keys = chord ? `${chord} ${event.key}` : event.key;
  chord = "";
  clearTimeout(chordTimer);
  const target = document.querySelector(`[data-key="${CSS.escape(keys)}"]`);
  if (target) {
    event.preventDefault();
    if (target.matches("input")) { target.focus(); target.select(); } else target.click();
  } else if (keys === "g") {
    chord = "g";
    chordTimer = setTimeout(() => { chord = ""; }, CHORD_MS);
  } else if (["j", "k", "ArrowDown", "ArrowUp"].includes(keys)) {
    move(event, keys === "j" || keys === "ArrowDown" ? 1 : -1);
  } else if (keys === "x") {
    document.activeElement.closest("tr")?.querySelector("input[type=checkbox]")?.click();
  }
});

/** To the next row, or the one before; with arrows only once a row is in hand, so that they scroll otherwise. */
function move(event, step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  if (!rows.length || (at < 0 && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  rows[Math.min(Math.max(at < 0 ? 0 : at + step, 0), rows.length - 1)].focus();
}

// ----- the rest -------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

document.addEventListener("change", (event) => {
  const changed = event.target;
  if (changed.matches("[data-every]")) {
    changed.closest("table").querySelectorAll("tbody input[type=checkbox]").forEach((each) => { each.checked = changed.checked; });
  }
  if (changed.matches("select[data-step]")) {
    changed.form.requestSubmit(changed.form.querySelector(`button[value="${changed.dataset.step}"]`));
  }
});
