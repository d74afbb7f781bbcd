// The gauge of places with its figures, and the controls of limit and mode.
import { call, Problem } from "./api.js";
import { count, wait } from "./format.js";
import { $, setAttribute, setText } from "./rows.js";

/** @typedef {import("./types.d.ts").Capacity} Capacity */
/** @typedef {import("./types.d.ts").Mode} Mode */

const MODES = {
  open: "Who comes may enter while there is a free place.",
  paused: "Nobody enters. Interviews go on, and the line grows.",
  closed: "Nobody enters, and nobody may join the line. Interviews go on.",
};
const MODE_WORDS = { open: "open", paused: "paused", closed: "closed" };

/** What a new limit would do, before it is set. @param {Capacity} now @param {number} limit */
export function previewOf(now, limit) {
  const over = now.active + now.offered - limit;
  if (over > 0) return `Nobody is thrown out: ${count(over, "place")} less as soon as they are free.`;
  const free = limit - now.active - now.offered;
  const enter = now.mode === "open" && !now.recovering ? Math.min(free, now.waiting) : 0;
  if (enter > 0 && limit > now.limit) return `Lets ${enter} of the ${now.waiting} waiting in at once, if they are ready.`;
  return `${count(free, "place")} would be free.`;
}

/** @param {{ pool: () => string, announce: (sentence: string) => void, failed: () => void }} page */
export function makePlaces({ pool, announce, failed }) {
  /** @type {Capacity | null} */
  let shown = null;
  let isEdited = false;
  const input = $("new-limit");
  const modeButtons = [...$("modes").querySelectorAll("button")];

  /** @param {Capacity | null} capacity */
  function render(capacity) {
    tellChanges(shown, capacity);
    shown = capacity;
    renderGauge(capacity);
    setText($("available"), text(capacity?.available));
    setText($("waiting"), text(capacity?.waiting));
    setText($("online"), text(capacity?.sessions_online));
    setText($("eta"), capacity ? (capacity.available > 0 ? "none" : wait(capacity.eta_s, capacity.eta_max_s)) : "–");
    if (capacity && !isEdited) input.value = String(capacity.limit);
    renderControls();
  }

  function renderControls() {
    const limit = wanted();
    $("set-limit").disabled = !shown || limit === null || limit === shown.limit;
    const isOff = input.value !== "" && limit === null;
    setAttribute(input, "aria-invalid", isOff ? "true" : null);
    const preview = !shown || limit === shown.limit ? "" : limit === null ? "A whole number from 0 to 100,000." : previewOf(shown, limit);
    setText($("limit-preview"), preview);
    for (const button of modeButtons) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === shown?.mode));
      button.disabled = !shown;
    }
    setText($("mode-note"), shown ? MODES[shown.mode] : "");
  }

  /** The limit in the field; null if it is none. */
  function wanted() {
    const value = input.value.trim();
    return /^\d{1,6}$/.test(value) && Number(value) <= 100_000 ? Number(value) : null;
  }

  /** @param {Capacity | null} before @param {Capacity | null} after */
  function tellChanges(before, after) {
    if (!before || !after || before.pool !== after.pool) return;
    if (before.limit !== after.limit) announce(`The limit is ${after.limit} now.`);
    if (before.mode !== after.mode) announce(`The pool is ${MODE_WORDS[after.mode]} now.`);
  }

  /** @param {{ limit?: number, mode?: Mode }} changes @param {string} done */
  async function change(changes, done) {
    say("", false);
    try {
      await call("PUT", `/v1/pools/${encodeURIComponent(pool())}`, { body: changes });
      say(done, false);
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.message, true);
      announce(error.message);
      failed();
      return false;
    }
  }

  /** @param {string} sentence @param {boolean} isProblem */
  function say(sentence, isProblem) {
    const feedback = $("feedback");
    feedback.hidden = !sentence;
    feedback.classList.toggle("problem", isProblem);
    setText(feedback, sentence);
  }

  function edited() {
    isEdited = wanted() !== shown?.limit;
    renderControls();
  }

  /** @param {number} by */
  function step(by) {
    input.value = String(Math.min(100_000, Math.max(0, (wanted() ?? shown?.limit ?? 0) + by)));
    edited();
  }

  input.addEventListener("input", edited);
  $("fewer").addEventListener("click", () => step(-1));
  $("more").addEventListener("click", () => step(1));
  $("limit-form").addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const limit = wanted();
    if (limit === null || limit === shown?.limit) return;
    $("set-limit").disabled = true;
    if (await change({ limit }, `The limit is set to ${limit}.`)) isEdited = false;
    renderControls();
  });
  $("modes").addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const mode = /** @type {HTMLElement} */ (event.target).dataset.mode;
    if (mode && mode !== shown?.mode) change({ mode: /** @type {Mode} */ (mode) }, `The pool is set to ${MODE_WORDS[mode]}.`);
  });

  /** Another pool: nothing of the old one may stay in the field. */
  function reset() {
    isEdited = false;
    input.value = "";
    say("", false);
    render(null);
  }

  return { render, reset };
}

/** @param {number | undefined} number */
function text(number) {
  return number === undefined ? "–" : String(number);
}

/** @param {Capacity | null} capacity */
function renderGauge(capacity) {
  const { active = 0, offered = 0, limit = 0 } = capacity ?? {};
  const whole = Math.max(limit, active + offered, 1);
  setArc($("gauge-taken"), active / whole);
  setArc($("gauge-offered"), (active + offered) / whole);
  const gauge = $("gauge");
  const over = Math.max(0, active + offered - limit);
  gauge.classList.toggle("full", !!capacity && active + offered >= limit);
  setAttribute(gauge, "aria-valuenow", String(active));
  setAttribute(gauge, "aria-valuemax", String(whole));
  const sentence = `${active} of ${limit} taken${offered ? `, ${offered} offered` : ""}`;
  setAttribute(gauge, "aria-valuetext", capacity ? sentence : "not known yet");
  setText($("taken"), text(capacity?.active));
  setText($("limit"), text(capacity?.limit));
  setText($("gauge-note"), noteOf(capacity, over));
}

/** @param {Capacity | null} capacity @param {number} over */
function noteOf(capacity, over) {
  if (!capacity) return "";
  const notes = [];
  if (capacity.recovering) notes.push("recovering");
  if (over > 0) notes.push(`${over} over the limit, until they leave`);
  if (capacity.offered > 0) notes.push(`${capacity.offered} offered`);
  return notes.join(" · ");
}

/** @param {Element} path @param {number} share */
function setArc(path, share) {
  setAttribute(path, "stroke-dasharray", `${(share * 100).toFixed(2)} 200`);
  // A dash of no length would still show its round end.
  setAttribute(path, "visibility", share > 0 ? null : "hidden");
}
