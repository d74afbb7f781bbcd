// The table of sessions: search, filters, order; rows are changed where they differ.
import { about, ago, count, languageName, lasting } from "./format.js";
import { $, copyOf, keyedList, setAttribute, setExact, setText } from "./rows.js";
import { hasEnded, stateOf } from "./store.js";

/** @typedef {import("./types.d.ts").Session} Session */
/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {{ search: string, state: string, page: string, language: string }} Filters */

const ROWS_AT_ONCE = 200;
const TICK_MS = 10_000;
const ORDER = ["granted", "offered", "waiting", "here", "away", "completed", "abandoned"];
const WORDS = {
  granted: "in interview",
  offered: "offered",
  waiting: "waiting",
  here: "here",
  away: "away",
  completed: "completed",
  abandoned: "abandoned",
};
const ENDS = { kicked: "kicked", cleanup: "tidied up", abandoned: "did not come back" };

/** @type {Record<string, (session: Session) => string | number>} */
const SORT_KEYS = {
  user: (session) => session.user_id.toLowerCase(),
  state: (session) => ORDER.indexOf(stateOf(session)),
  page: (session) => session.current_page ?? "\uffff",
  language: (session) => languageName(session.language_code) || "\uffff",
  started: (session) => Date.parse(session.started_at),
  interview: (session) => (stateOf(session) === "granted" ? Date.parse(session.interview_started_at ?? "") : Infinity),
};

/** Whether a session is wanted. @param {Session} session @param {Filters} filters */
export function matches(session, { search, state, page, language }) {
  if (state === "active" ? hasEnded(session) : state === "ended" ? !hasEnded(session) : stateOf(session) !== state) return false;
  if (page && session.current_page !== page) return false;
  if (language && session.language_code !== language) return false;
  if (!search) return true;
  const { user_id, session_id, current_page, language_code } = session;
  const text = [user_id, session_id, current_page, language_code, languageName(language_code)].join("\n").toLowerCase();
  return search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** In the order wanted; the newest first among equals. @param {Session[]} sessions @param {string} by @param {string} direction */
export function sorted(sessions, by, direction) {
  const sign = direction === "desc" ? -1 : 1;
  const keyed = sessions.map((session) => ({ session, key: SORT_KEYS[by](session), started: session.started_at }));
  keyed.sort((a, b) => {
    if (a.key !== b.key) return a.key < b.key ? -sign : sign;
    if (a.started !== b.started) return a.started < b.started ? 1 : -1;
    return a.session.session_id < b.session.session_id ? -1 : 1;
  });
  return keyed.map((each) => each.session);
}

/**
 * @param {Store} store
 * @param {{ now: () => number, changed: () => void, announce: (sentence: string) => void, loadEnded: () => void }} page
 */
export function makeSessions(store, { now, changed, announce, loadEnded }) {
  let [sortBy, direction] = ["started", "desc"];
  let atMost = ROWS_AT_ONCE;
  let announceSoon = 0;
  let found = 0;
  /** What each row shows: most need not be looked at again. @type {WeakMap<HTMLElement, { session: Session, tick: number, position: number }>} */
  const drawn = new WeakMap();
  const rows = keyedList($("rows"), { key: (/** @type {Session} */ each) => each.session_id, create: row, update: updateRow });
  const headings = /** @type {HTMLElement[]} */ ([...$("table").querySelectorAll("th[data-sort]")]);
  const pages = choices($("by-page"), (code) => code);
  const languages = choices($("by-language"), languageName);

  /** @returns {Filters} */
  function filters() {
    return { search: $("search").value.trim(), state: $("by-state").value, page: $("by-page").value, language: $("by-language").value };
  }

  function render() {
    const all = [...store.sessions.values()];
    pages(all.map((each) => each.current_page));
    languages(all.map((each) => each.language_code));
    const wanted = filters();
    const hits = sorted(all.filter((each) => matches(each, wanted)), sortBy, direction);
    found = hits.length;
    if (!rows(hits.slice(0, atMost))) changed();
    const among = wanted.state === "ended" ? store.ended.size : all.length - store.ended.size;
    setText($("shown"), found === among ? count(among, "session") : `${found} of ${count(among, "session")}`);
    const isFiltered = !!(wanted.search || wanted.page || wanted.language || wanted.state !== "active");
    $("clear").hidden = !isFiltered;
    $("no-rows").hidden = found > 0;
    setText($("no-rows"), isFiltered ? "No session fits. Clear the filters to see all." : "No sessions yet.");
    $("more-rows").hidden = found <= atMost;
    setText($("more-rows"), `Show ${Math.min(ROWS_AT_ONCE, found - atMost)} more of ${found}`);
    for (const heading of headings) {
      setAttribute(heading, "aria-sort", heading.dataset.sort === sortBy ? (direction === "asc" ? "ascending" : "descending") : null);
    }
  }

  /** @param {Session} session */
  function row({ session_id }) {
    const element = copyOf("row-template");
    element.dataset.session = session_id;
    return element;
  }

  /** @param {HTMLElement} element @param {Session} session */
  function updateRow(element, session) {
    const tick = Math.floor(now() / TICK_MS);
    const shown = drawn.get(element);
    const position = store.positions.get(session.session_id) ?? session.interview.position;
    if (shown?.session === session && shown.tick === tick && shown.position === position) return;
    drawn.set(element, { session, tick, position });
    const [who, state, page, language, came, interview, actions] = element.children;
    const standing = stateOf(session);
    setAttribute(element, "data-state", standing);
    setText(who.firstElementChild, session.user_id);
    setText(who.lastElementChild, session.session_id);
    const chip = state.firstElementChild;
    setText(chip, WORDS[standing]);
    setAttribute(chip, "data-state", standing);
    setText(state.lastElementChild, moreOf(session, standing, position));
    setText(page, session.current_page ?? "");
    setText(language, languageName(session.language_code));
    setTime(came.firstElementChild, Date.parse(session.started_at));
    setInterview(interview.firstElementChild, session);
    const [complete, kick] = actions.children;
    for (const button of [complete, kick]) setAttribute(button, "hidden", hasEnded(session) ? "" : null);
    setAttribute(complete, "aria-label", `Complete ${session.user_id}`);
    setAttribute(kick, "aria-label", `Kick ${session.user_id}`);
  }

  /** @param {Session} session @param {State} standing @param {number | undefined} position */
  function moreOf(session, standing, position) {
    if (hasEnded(session)) return ENDS[session.end_reason] ?? "";
    if (standing === "waiting") return position ? `number ${position}` : "";
    if (standing === "away") return `for ${about((now() - Date.parse(session.last_seen)) / 1000)}`;
    if (!session.online || session.connection === null) return "not connected";
    return session.connection === "http" ? "over HTTP" : "";
  }

  /** @param {Element} element @param {number} ms */
  function setTime(element, ms) {
    setText(element, ago((now() - ms) / 1000));
    setExact(element, ms, "");
  }

  /** @param {Element} element @param {Session} session */
  function setInterview(element, session) {
    const startedMs = Date.parse(session.interview_started_at ?? "");
    const endedMs = session.is_in_interview ? now() : Date.parse(session.interview_ended_at ?? "");
    const isKnown = !Number.isNaN(startedMs) && !Number.isNaN(endedMs);
    setText(element, isKnown ? lasting((endedMs - startedMs) / 1000) : "");
    setExact(element, startedMs, "since ");
  }

  /** @param {string} by @param {string} to */
  function sort(by, to) {
    [sortBy, direction] = [by, to];
    const option = `${by}:${to}`;
    const known = [...$("sort-by").options].some((each) => each.value === option);
    $("sort-by").value = known ? option : "";
    changed();
  }

  for (const heading of headings) {
    heading.querySelector("button").addEventListener("click", () => {
      const by = heading.dataset.sort;
      const first = by === "started" ? "desc" : "asc";
      sort(by, by !== sortBy ? first : direction === "asc" ? "desc" : "asc");
    });
  }
  $("sort-by").addEventListener("change", () => {
    const [by, to] = $("sort-by").value.split(":");
    sort(by, to);
  });

  function filtered() {
    atMost = ROWS_AT_ONCE;
    if ($("by-state").value === "ended") loadEnded();
    changed();
    clearTimeout(announceSoon);
    announceSoon = setTimeout(() => announce(`${count(found, "session")} shown.`), 800);
  }

  $("filters").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
  $("filters").addEventListener("input", (/** @type {Event} */ event) => {
    if (event.target !== $("sort-by")) filtered();
  });
  $("filters").addEventListener("reset", () => {
    $("search").focus();
    setTimeout(() => {
      $("sort-by").value = `${sortBy}:${direction}`;
      filtered();
    });
  });
  $("more-rows").addEventListener("click", () => {
    atMost += ROWS_AT_ONCE;
    changed();
  });

  return { render };
}

/** Keeps the options of a filter to what there is; what is chosen stays. @param {HTMLSelectElement} select @param {(code: string) => string} name */
function choices(select, name) {
  let shown = "";
  return (/** @type {(string | null)[]} */ values) => {
    const found = new Set(values.filter(Boolean));
    if (select.value) found.add(select.value);
    const codes = [...found].sort((a, b) => name(a).localeCompare(name(b)));
    if (codes.join("\n") === shown) return;
    shown = codes.join("\n");
    const chosen = select.value;
    const options = codes.map((code) => new Option(name(code), code, false, code === chosen));
    select.replaceChildren(select.options[0], ...options);
    select.value = chosen;
  };
}
