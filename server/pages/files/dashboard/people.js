// Who is in the interview and for how long, and the line.
import { about, clock, count, languageName } from "./format.js";
import { $, copyOf, keyedList, setAttribute, setExact, setText } from "./rows.js";
import { stateOf } from "./store.js";

/** @typedef {import("./types.d.ts").Session} Session */
/** @typedef {import("./types.d.ts").Waiter} Waiter */
/** @typedef {import("./store.js").Store} Store */

const SHOWN_AT_MOST = 100;

/** @param {Store} store @param {{ now: () => number, changed: () => void }} page `now`: the server's time */
export function makePeople(store, { now, changed }) {
  const inside = keyedList($("inside"), { key: (/** @type {Session} */ each) => each.session_id, create: person, update: updateHolder });
  const line = keyedList($("line"), { key: (/** @type {Waiter} */ each) => each.session_id, create: person, update: updateWaiter });

  /** @param {{ session_id: string }} whose */
  function person({ session_id }) {
    const element = copyOf("person-template");
    element.dataset.session = session_id;
    return element;
  }

  /** @param {HTMLElement} element @param {Session} session */
  function updateHolder(element, session) {
    const isConnected = session.online && session.connection !== null;
    element.classList.toggle("away", !isConnected);
    const note = isConnected ? "" : "not connected, place kept for now";
    fill(element, { user: session.user_id, details: detailsOf(session, note), session: session.session_id });
    const startedMs = Date.parse(session.interview_started_at ?? "");
    setTime(element.querySelector(".since"), startedMs, now(), "in since ");
    setText(element.querySelector(".until"), endOf(session, startedMs));
  }

  /** @param {Session} session @param {number} startedMs */
  function endOf(session, startedMs) {
    const { ends_in_s } = session.interview;
    if (ends_in_s == null || Number.isNaN(startedMs)) return "";
    const heardMs = store.serverTime(store.heardAt.get(session.session_id));
    return `ends in ${clock(ends_in_s - (now() - heardMs) / 1000)}`;
  }

  /** @param {HTMLElement} element @param {Waiter} waiter */
  function updateWaiter(element, waiter) {
    const session = store.sessions.get(waiter.session_id);
    element.classList.toggle("offered", waiter.state === "offered");
    element.classList.toggle("away", waiter.state === "waiting" && !waiter.ready);
    setText(element.querySelector(".number"), String(waiter.position));
    fill(element, { user: waiter.user_id, details: detailsOf(session, standingOf(waiter)), session: waiter.session_id });
    setTime(element.querySelector(".since"), Date.parse(waiter.since ?? ""), now(), "waiting since ");
    setText(element.querySelector(".until"), etaOf(waiter));
  }

  return {
    render() {
      const holders = [...store.sessions.values()].filter((each) => stateOf(each) === "granted");
      holders.sort((a, b) => startOf(a).localeCompare(startOf(b)) || a.session_id.localeCompare(b.session_id));
      const isWhole = inside(holders.slice(0, SHOWN_AT_MOST));
      setText($("inside-count"), String(holders.length));
      $("nobody-inside").hidden = holders.length > 0;

      const waiters = store.line?.sessions ?? [];
      const shown = waiters.slice(0, SHOWN_AT_MOST);
      const all = store.line ? store.line.waiting + store.line.offered : 0;
      if (!line(shown) || !isWhole) changed();
      setText($("line-count"), String(all));
      $("nobody-waits").hidden = all > 0;
      $("line-rest").hidden = all <= shown.length;
      setText($("line-rest"), `and ${count(all - shown.length, "more", "more")} behind them`);
    },
  };
}

/** @param {Session} session */
function startOf(session) {
  return session.interview_started_at ?? "";
}

/** @param {Waiter} waiter */
function standingOf(waiter) {
  if (waiter.state === "offered") return "has an offer";
  return waiter.ready ? "" : "away, keeps the place";
}

/** @param {Waiter} waiter */
function etaOf({ state, eta_s, eta_max_s }) {
  if (state === "offered" || eta_s == null) return "";
  return eta_max_s == null ? `in about ${about(eta_s)}` : `in about ${about(eta_s)}, at most ${about(eta_max_s)}`;
}

/** @param {Session | undefined} session @param {string} note */
function detailsOf(session, note) {
  return [note, session?.current_page, session && languageName(session.language_code)].filter(Boolean).join(" · ");
}

/** @param {HTMLElement} element @param {{ user: string, details: string, session: string }} texts */
function fill(element, { user, details, session }) {
  const name = element.querySelector(".user");
  setText(name, user);
  setAttribute(name, "title", `Session ${session}`);
  setText(element.querySelector(".details"), details);
}

/** @param {Element} element @param {number} sinceMs @param {number} nowMs @param {string} words */
function setTime(element, sinceMs, nowMs, words) {
  const isKnown = !Number.isNaN(sinceMs);
  setText(element, isKnown ? clock((nowMs - sinceMs) / 1000) : "");
  setExact(element, sinceMs, words);
}
