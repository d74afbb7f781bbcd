// What the page knows of one pool: sessions by id, counts, the line. Pure.

/** @typedef {import("./types.d.ts").Session} Session */
/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Capacity} Capacity */
/** @typedef {import("./types.d.ts").Line} Line */

const ENDED_AT_MOST = 500;

/** Where a session stands, in one word. @param {Session} session @returns {State} */
export function stateOf(session) {
  if (session.status !== "active") return session.status;
  const { state } = session.interview;
  if (state === "granted" || state === "offered" || state === "waiting") return state;
  return session.online ? "here" : "away";
}

/** @param {Session} session */
export function hasEnded(session) {
  return session.status !== "active";
}

export class Store {
  constructor() {
    this.clear();
  }

  clear() {
    /** @type {Map<string, Session>} */
    this.sessions = new Map();
    /** Until when (our clock) each session is newer than any list that was asked for before. @type {Map<string, number>} */
    this.heardAt = new Map();
    /** @type {Capacity | null} */
    this.capacity = null;
    /** @type {Line | null} */
    this.line = null;
    /** Where in line, by session id: others' leaving moves a position without news of its session. @type {Map<string, number>} */
    this.positions = new Map();
    /** Ids of ended sessions, oldest first. @type {Set<string>} */
    this.ended = new Set();
    /** Ended ones of which an event told us, and no session yet: without a history it is gone by then. @type {Set<string>} */
    this.spared = new Set();
    /** How far the server's clock is ahead of ours, at least. @type {number | null} */
    this.aheadMs = null;
  }

  /** The server's time now, as well as we know it. @param {number} nowMs ours */
  serverTime(nowMs) {
    return nowMs + (this.aheadMs ?? 0);
  }

  /** @param {Capacity} capacity @param {number} nowMs */
  setCapacity(capacity, nowMs) {
    this.capacity = capacity;
    // What was delayed on its way only seems to be older: the greatest difference is the truest.
    const ahead = Date.parse(capacity.as_of) - nowMs;
    this.aheadMs = this.aheadMs === null ? ahead : Math.max(this.aheadMs, ahead);
  }

  /** @param {Line} line */
  setLine(line) {
    this.line = line;
    this.positions = new Map(line.sessions.map((each) => [each.session_id, each.position]));
  }

  /** Take news of a session; false if we know better. @param {Session} session @param {number} nowMs */
  put(session, nowMs) {
    const known = this.sessions.get(session.session_id);
    if (known && known.version > session.version) return false;
    this.sessions.set(session.session_id, session);
    this.heardAt.set(session.session_id, nowMs);
    this.ended.delete(session.session_id);
    this.spared.delete(session.session_id);
    if (hasEnded(session)) this.#keepEnded(session.session_id);
    return true;
  }

  /** An event says how a session ended. @param {string} sessionId @param {string} how @param {number} nowMs */
  end(sessionId, how, nowMs) {
    const known = this.sessions.get(sessionId);
    if (!known || hasEnded(known)) return;
    const status = how === "completed" ? "completed" : "abandoned";
    this.put({ ...known, status, end_reason: how, online: false, connection: null, is_in_interview: false, interview: { state: "none" } }, nowMs);
    this.spared.add(sessionId);
  }

  /** Redis does not have it any more. @param {string} sessionId */
  gone(sessionId) {
    if (!this.spared.delete(sessionId)) this.remove(sessionId);
  }

  /** @param {string} sessionId */
  remove(sessionId) {
    this.sessions.delete(sessionId);
    this.heardAt.delete(sessionId);
    this.ended.delete(sessionId);
    this.spared.delete(sessionId);
  }

  /**
   * All that have not ended, as a list says that was asked for at `askedMs`: others are gone, but for those of whom we
   * have heard since.
   * @param {Session[]} sessions @param {number} askedMs @param {number} nowMs
   */
  replaceActive(sessions, askedMs, nowMs) {
    const listed = new Set(sessions.map((each) => each.session_id));
    for (const [id, session] of this.sessions) {
      if (!listed.has(id) && !hasEnded(session) && this.heardAt.get(id) < askedMs) this.remove(id);
    }
    for (const session of sessions) {
      const known = this.sessions.get(session.session_id);
      const isNews = !known || this.heardAt.get(session.session_id) < askedMs || session.version > known.version;
      if (isNews) this.put(session, nowMs);
    }
  }

  /** @param {string} sessionId */
  #keepEnded(sessionId) {
    this.ended.add(sessionId);
    for (const oldest of this.ended) {
      if (this.ended.size <= ENDED_AT_MOST) return;
      this.remove(oldest);
    }
  }
}
