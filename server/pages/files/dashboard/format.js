// Times, durations and languages as people read them. Pure.

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

const languages = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const shortTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A running clock: `4:07`, `1:02:30`. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / MINUTE_S);
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  if (whole < HOUR_S) return `${minutes}:${two(whole % MINUTE_S)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % MINUTE_S)}`;
}

/** A duration in words, about: `40 s`, `5 min`, `3 h`, `2 d`. @param {number} seconds */
export function about(seconds) {
  if (seconds < 1.5 * MINUTE_S) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 1.5 * HOUR_S) return `${Math.round(seconds / MINUTE_S)} min`;
  if (seconds < 2 * DAY_S) return `${Math.round(seconds / HOUR_S)} h`;
  return `${Math.round(seconds / DAY_S)} d`;
}

/** How long ago, without seconds, so that a table stays calm. @param {number} seconds */
export function ago(seconds) {
  return seconds < MINUTE_S ? "just now" : `${lasting(seconds)} ago`;
}

/** How long something has lasted, without seconds. @param {number} seconds */
export function lasting(seconds) {
  return seconds < MINUTE_S ? "under a minute" : seconds < 1.5 * MINUTE_S ? "1 min" : about(seconds);
}

/** @param {number | null} seconds @param {number | null} most */
export function wait(seconds, most) {
  if (seconds == null) return "unknown";
  if (seconds < 1) return "none";
  return most == null ? `about ${about(seconds)}` : `about ${about(seconds)}, at most ${about(most)}`;
}

/** @type {Map<string, string>} */
const named = new Map();

/** `de` is German. @param {string | null} code */
export function languageName(code) {
  if (!code) return "";
  if (!named.has(code)) named.set(code, nameOf(code));
  return named.get(code);
}

/** @param {string} code */
function nameOf(code) {
  try {
    return languages.of(code);
  } catch {
    return code;
  }
}

/** The exact time, for a title. @param {number} ms */
export function exactTime(ms) {
  return exact.format(ms);
}

/** @param {number} ms */
export function timeOfDay(ms) {
  return clockTime.format(ms);
}

/** @param {number} ms */
export function hourAndMinute(ms) {
  return shortTime.format(ms);
}

/** `1 session`, `2 sessions`. @param {number} number @param {string} one @param {string} [many] */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
