// What follows from what: pure functions.
/** @import { Backoff, Closed, Owed, Settled, Newest } from "./types.d.ts" */
const FINAL = [1003, 1009, 4400, 4401, 4408, 4409, 4410, 4426];

/** @type {Backoff} */
export const backoff = (failures, random) => random() * Math.min(30_000, 1000 * 2 ** failures);

/** @type {Closed} */
export function closed(code, { text, up, failures, hint, random }) {
  if (FINAL.includes(code)) return { reason: code === 4409 ? "taken_over" : text || "ended" };
  failures = up < 5000 ? failures + 1 : 0;
  // Code 0: we dropped a silent socket, which says nothing against a new one.
  return { failures, wait: code || failures ? hint + backoff(failures, random) : 0 };
}

/** @type {Owed} */
export function owed({ page, visible, watch, wish }, told) {
  const messages = [];
  if (page !== told.page) messages.push({ type: "page", page });
  if (visible !== told.visible) messages.push({ type: "visible", visible });
  if (watch !== !!told.watch) messages.push({ type: watch ? "watch" : "unwatch" });
  if (wish && wish !== told.wish) messages.push(wish);
  return messages;
}

/** @type {Settled} */
export function settled({ type }, { state, reason }) {
  if (type === "complete") return reason === "completed";
  return type === "accept" || (type === "leave") === (state === "none");
}

const claims = (token) => JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));

/** @type {Newest} */
export function newest(given, kept) {
  try {
    const [mine, old] = [given, kept].map(claims);
    return mine.sub === old.sub && old.iat >= mine.iat ? kept : given;
  } catch {
    return given || kept;
  }
}
