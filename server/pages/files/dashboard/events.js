// What happens, newest first: a bounded list that can be held still.
import { timeOfDay } from "./format.js";
import { $, copyOf, keyedList, setAttribute, setExact, setText } from "./rows.js";

/** @typedef {import("./types.d.ts").PoolEvent} PoolEvent */

const KEPT = 300;
const SHOWN = 100;

/** @type {Record<string, [kind: string, words: string]>} */
const WORDS = {
  session_started: ["presence", "has come"],
  session_resumed: ["presence", "has come back"],
  connected: ["presence", "is connected"],
  disconnected: ["presence", "lost the connection"],
  offline: ["presence", "is offline"],
  page: ["presence", "went to another page"],
  abandoned: ["presence", "did not come back"],
  kicked: ["interview", "was kicked"],
  waiting: ["interview", "waits in line"],
  offered: ["interview", "was offered a place"],
  offer_missed: ["interview", "missed the offer"],
  granted: ["interview", "is in the interview"],
  grace: ["interview", "is gone, the place is kept for a moment"],
  released: ["interview", "no longer holds a place"],
  taken_over: ["interview", "goes on in another session"],
  left_line: ["interview", "left the line"],
  completed: ["interview", "has completed"],
  pool_changed: ["pool", "The pool was changed"],
  recovery_started: ["pool", "Redis has lost its memory: the server gathers who is here"],
  recovery_ended: ["pool", "Everybody is known again"],
};

// Elsewhere the cause says nothing that the words don't.
const CAUSES_OF = new Set(["disconnected", "offline", "released", "left_line", "abandoned"]);

/** An event as a sentence. @param {PoolEvent} event */
export function sentenceOf(event) {
  const [, words = event.type.replaceAll("_", " ")] = WORDS[event.type] ?? [];
  const more = event.type === "pool_changed" ? event.actor : CAUSES_OF.has(event.type) ? event.cause : undefined;
  const who = event.user_id ?? event.session_id;
  return [who, words, more && `(${more.replaceAll("_", " ")})`].filter(Boolean).join(" ");
}

/** @param {string} type */
function kindOf(type) {
  return WORDS[type]?.[0] ?? "pool";
}

/** @param {() => void} changed */
export function makeEvents(changed) {
  /** Newest last. @type {PoolEvent[]} */
  let events = [];
  /** What was there when it was paused. @type {PoolEvent[] | null} */
  let held = null;
  let missed = 0;
  const list = keyedList($("events"), { key: (/** @type {PoolEvent} */ each) => `${each.epoch}:${each.seq}`, create: line, update: () => {} });

  /** @param {PoolEvent} event */
  function line(event) {
    const element = copyOf("event-template");
    const ms = Date.parse(event.at);
    const [time, what] = element.children;
    setText(time, timeOfDay(ms));
    setExact(time, ms, "");
    setText(what, sentenceOf(event));
    setAttribute(element, "data-kind", kindOf(event.type));
    setAttribute(element, "data-type", event.type);
    setAttribute(element, "title", [event.type, event.session_id && `session ${event.session_id}`].filter(Boolean).join(", "));
    return element;
  }

  function render() {
    const kind = $("event-kind").value;
    const shown = (held ?? events).filter((each) => !kind || kindOf(each.type) === kind).slice(-SHOWN).reverse();
    if (!list(shown)) changed();
    $("no-events").hidden = shown.length > 0;
    setAttribute($("pause"), "aria-pressed", String(held !== null));
    setText($("pause"), held === null ? "Pause" : missed ? `Go on (${missed} new)` : "Go on");
  }

  $("event-kind").addEventListener("change", changed);
  $("pause").addEventListener("click", () => {
    held = held === null ? events.slice() : null;
    missed = 0;
    changed();
  });

  return {
    render,
    /** @param {PoolEvent} event */
    add(event) {
      events.push(event);
      if (events.length > KEPT) events = events.slice(-KEPT);
      if (held !== null) missed += 1;
    },
    clear() {
      events = [];
      held = null;
      missed = 0;
    },
  };
}
