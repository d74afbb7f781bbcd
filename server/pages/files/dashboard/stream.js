// Follows the pool's events with fetch: goes on where it was after any loss, with back-off and jitter.
import { CSRF, Problem, problemOf, reach } from "./api.js";
import { createParser } from "./sse.js";

/** @typedef {import("./types.d.ts").Message} Message */
/** @typedef {import("./types.d.ts").StreamState} StreamState */

// The server writes a comment at least every 15 s.
const SILENT_AT_MOST_MS = 40_000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 5_000;
// Whoever asks for too much, or for what is not there, gets the same answer the next time.
const FINAL = new Set([400, 401, 403, 404, 422]);

/** Full jitter: anything up to a bound that doubles. @param {number} failures @param {() => number} [random] */
export function delayMs(failures, random = Math.random) {
  return FIRST_DELAY_MS / 2 + random() * Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
}

/**
 * @param {string} url
 * @param {{
 *   onOpen: () => void,
 *   onMessage: (message: Message) => void,
 *   onState: (state: StreamState, problem?: Problem) => void,
 * }} listener
 * @returns {() => void} ends it
 */
export function follow(url, { onOpen, onMessage, onState }) {
  const over = new AbortController();
  let lastId = null;
  let failures = 0;
  let wake = () => {};

  async function live() {
    onState("connecting");
    while (!over.signal.aborted) {
      const problem = await readOnce();
      if (over.signal.aborted) return;
      if (problem && FINAL.has(problem.status)) return onState("refused", problem);
      onState("reconnecting", problem);
      failures += 1;
      await pause(Math.max((problem?.retryAfterS ?? 0) * 1000 * Math.random(), delayMs(failures)));
    }
  }

  /** Until the stream ends; the problem, if there was one. */
  async function readOnce() {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    over.signal.addEventListener("abort", stop);
    let silence = setTimeout(stop, SILENT_AT_MOST_MS);
    try {
      const response = await reach(url, { headers: headers(), signal: attempt.signal });
      if (!response.ok) return await problemOf(response);
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) return new Problem(0, "This is no stream of events.");
      onState("live");
      onOpen();
      const parse = createParser(take);
      const decoder = new TextDecoder();
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) return undefined;
        clearTimeout(silence);
        silence = setTimeout(stop, SILENT_AT_MOST_MS);
        parse(decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      return error instanceof Problem ? error : undefined;
    } finally {
      clearTimeout(silence);
      over.signal.removeEventListener("abort", stop);
      attempt.abort();
    }
  }

  /** @param {Message} message */
  function take(message) {
    failures = 0;
    if (message.id !== null) lastId = message.id;
    if (message.event === "reset") lastId = null;
    if (!over.signal.aborted) onMessage(message);
  }

  function headers() {
    return { ...CSRF, Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": lastId }) };
  }

  /** @param {number} ms */
  function pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  const hurry = () => wake();
  addEventListener("online", hurry);
  over.signal.addEventListener("abort", () => {
    removeEventListener("online", hurry);
    wake();
  });
  live();
  return () => over.abort();
}
