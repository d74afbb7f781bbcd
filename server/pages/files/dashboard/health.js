// Asks the server how it is, and says in a banner what a study lead must know.
import { reach } from "./api.js";
import { count, timeOfDay } from "./format.js";

/** @typedef {import("./types.d.ts").Readiness} Readiness */

const EVERY_MS = 5000;
const WHEN_OFF_MS = 1500;

/** What to say; empty when all is well. @param {Readiness | null} health null: no answer @param {number | null} lastSeenMs */
export function sentenceFor(health, lastSeenMs) {
  const shown = lastSeenMs === null ? "" : ` What you see is from ${timeOfDay(lastSeenMs)}.`;
  if (health === null) return `The server does not answer. Interviews go on; this page tries again by itself.${shown}`;
  if (health.redis === "down") return `Redis is away: nobody can be let in, running interviews go on, and all heals by itself.${shown}`;
  if (health.draining) return "This server is stopping. The page goes on with the next one.";
  if (health.recovering) return "Redis has lost its memory: for some seconds the server gathers who is here, and lets nobody in.";
  if (health.postgres !== "down") return "";
  const backlog = health.backlog === null ? "" : ` (${count(health.backlog, "session waits", "sessions wait")} to be written)`;
  return `Postgres is away: everything live goes on, the history is written later${backlog}.`;
}

/**
 * @param {{ say: (sentence: string) => void, lastSeenMs: () => number | null }} page
 * @returns {() => void} asks at once
 */
export function watchHealth({ say, lastSeenMs }) {
  let timer = 0;
  let lostMs = null;
  let sentence = "";

  async function ask() {
    clearTimeout(timer);
    if (!document.hidden) {
      const health = await readiness();
      const isLive = health !== null && health.redis === "ok";
      if (isLive) lostMs = null;
      else lostMs ??= lastSeenMs() ?? Date.now();
      sentence = sentenceFor(health, lostMs);
      say(sentence);
    }
    clearTimeout(timer);
    timer = setTimeout(ask, sentence ? WHEN_OFF_MS : EVERY_MS);
  }

  document.addEventListener("visibilitychange", ask);
  ask();
  return ask;
}

/** @returns {Promise<Readiness | null>} */
async function readiness() {
  try {
    const response = await reach("/readyz", { signal: AbortSignal.timeout(EVERY_MS) });
    const said = await response.json();
    return "redis" in said ? said : null;
  } catch {
    return null;
  }
}
