// The last hours as lines: online, in interview, waiting, and the limit. From the server's samples and what came since.
import { hourAndMinute } from "./format.js";
import { $, setAttribute, setText } from "./rows.js";

/** @typedef {import("./types.d.ts").Recent} Recent */
/** @typedef {import("./types.d.ts").Capacity} Capacity */
/** `limit`: null where nobody knows any more. @typedef {{ at: number, online: number, in_interview: number, waiting: number, limit: number | null }} Point */

export const HOURS = 4;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
const LEAST_SPAN_MS = 10 * MINUTE_MS;
const LIVE_STEP_MS = 5000;
const FIGURES_STEP_MS = 15 * MINUTE_MS;
const HEIGHT = 232;
const MARGIN = { top: 10, right: 12, bottom: 24, left: 34 };
const TICKS_MS = [2, 5, 10, 15, 30, 60].map((minutes) => minutes * MINUTE_MS);
const SERIES = /** @type {const} */ (["online", "limit", "waiting", "in_interview"]);
const SVG = "http://www.w3.org/2000/svg";

/** The least of 2, 4, 6, 8, 10, 20, 40, … that is not below, so that there is a whole number half way. @param {number} value */
export function niceMaximum(value) {
  const least = Math.max(2, value);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= least);
}

/** Samples and what came since, oldest first, none older than `fromMs`. @param {Point[]} samples @param {Point[]} live @param {number} fromMs */
export function joined(samples, live, fromMs) {
  const last = samples.at(-1)?.at ?? -Infinity;
  const all = [...samples, ...live.filter((each) => each.at > last)];
  // What was true when the window opens began before it.
  const first = Math.max(0, all.findLastIndex((each) => each.at <= fromMs));
  return all.slice(first);
}

/** The last point at or before a time. @param {Point[]} points @param {number} ms */
export function pointAt(points, ms) {
  return points.findLast((each) => each.at <= ms) ?? points[0];
}

/** @param {() => number} now the server's time */
export function makeChart(now) {
  /** @type {Point[]} */
  let samples = [];
  /** @type {Point[]} */
  let live = [];
  /** @type {Recent["source"] | null} */
  let source = null;
  let width = 0;
  let hoverX = null;
  const svg = svgElement("svg", { role: "img", height: String(HEIGHT) });
  const grid = svgElement("g", { class: "grid" });
  const paths = SERIES.map((name) => svgElement("path", { class: name }));
  const cursor = svgElement("line", { class: "cursor", y1: String(MARGIN.top), y2: String(HEIGHT - MARGIN.bottom) });
  svg.append(grid, ...paths, cursor);
  $("plot").append(svg);

  function render() {
    const end = now();
    const points = joined(samples, live, end - HOURS * HOUR_MS);
    const start = points.length ? Math.min(Math.max(points[0].at, end - HOURS * HOUR_MS), end - LEAST_SPAN_MS) : end - LEAST_SPAN_MS;
    const top = niceMaximum(Math.max(...points.flatMap((each) => SERIES.map((name) => each[name]))));
    const x = (/** @type {number} */ ms) => MARGIN.left + ((ms - start) / (end - start)) * (width - MARGIN.left - MARGIN.right);
    const y = (/** @type {number} */ value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    setAttribute(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    setAttribute(svg, "width", String(width));
    SERIES.forEach((name, index) => setAttribute(paths[index], "d", stepPath(points, name, x, y, start, end)));
    renderGrid(start, end, top, x, y);
    const shownAt = hoverX === null ? null : start + ((hoverX - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (end - start);
    renderLegend(shownAt === null ? points.at(-1) : pointAt(points, shownAt));
    cursor.style.display = hoverX === null ? "none" : "";
    if (hoverX !== null) for (const end of ["x1", "x2"]) setAttribute(cursor, end, String(hoverX));
    setText($("chart-source"), sentence(points, shownAt));
    setAttribute(svg, "aria-label", label(points));
    if ($("chart-details").open) renderFigures(points, end);
  }

  /** @param {Point[]} points @param {number | null} shownAt */
  function sentence(points, shownAt) {
    if (shownAt !== null && points.length) return `At ${hourAndMinute(shownAt)}`;
    if (source === "postgres" || !points.length) return "";
    const since = hourAndMinute(points[0].at);
    return source === "memory" ? `Since start, from memory (${since}).` : `Since this page was opened (${since}).`;
  }

  /** @param {number} start @param {number} end @param {number} top @param {(ms: number) => number} x @param {(value: number) => number} y */
  function renderGrid(start, end, top, x, y) {
    const parts = [];
    for (const value of [0, top / 2, top].filter(Number.isInteger)) {
      parts.push(svgElement("line", { x1: String(MARGIN.left), x2: String(width - MARGIN.right), y1: String(y(value)), y2: String(y(value)) }));
      parts.push(svgText(MARGIN.left - 8, y(value) + 4, "end", String(value)));
    }
    const every = TICKS_MS.find((step) => (end - start) / step <= Math.max(2, width / 80)) ?? HOUR_MS;
    const offset = new Date(start).getTimezoneOffset() * MINUTE_MS;
    for (let at = Math.ceil((start - offset) / every) * every + offset; at <= end; at += every) {
      const place = x(at);
      if (place > MARGIN.left + 14 && place < width - 24) parts.push(svgText(place, HEIGHT - 6, "middle", hourAndMinute(at)));
    }
    grid.replaceChildren(...parts);
  }

  new ResizeObserver(([entry]) => {
    width = Math.max(200, Math.floor(entry.contentRect.width));
    render();
  }).observe($("plot"));
  $("plot").addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    hoverX = Math.min(width - MARGIN.right, Math.max(MARGIN.left, place));
    render();
  });
  $("plot").addEventListener("pointerleave", () => {
    hoverX = null;
    render();
  });
  $("chart-details").addEventListener("toggle", render);

  return {
    render,
    /** @param {Recent} recent */
    setRecent(recent) {
      samples = recent.points.map((each) => ({ ...each, at: Date.parse(each.at) }));
      source = recent.source;
      live = live.filter((each) => each.at > (samples.at(-1)?.at ?? -Infinity));
    },
    /** @param {Capacity} capacity */
    add(capacity) {
      const { sessions_online: online, active: in_interview, waiting, limit } = capacity;
      const point = { at: Date.parse(capacity.as_of), online, in_interview, waiting, limit };
      const isSoon = live.length > 1 && point.at - live.at(-2).at < LIVE_STEP_MS;
      if (isSoon) live.pop();
      live.push(point);
      if (live[0].at < point.at - HOURS * HOUR_MS) live.shift();
    },
    clear() {
      samples = [];
      live = [];
      source = null;
    },
  };
}

/** @param {Point[]} all @param {typeof SERIES[number]} name @param {(ms: number) => number} x @param {(value: number) => number} y @param {number} start @param {number} end */
function stepPath(all, name, x, y, start, end) {
  const points = all.filter((each) => each[name] !== null);
  if (!points.length) return "M 0 0";
  const at = (/** @type {Point} */ point) => x(Math.max(start, point.at)).toFixed(1);
  const steps = points.map((point) => `H ${at(point)} V ${y(point[name]).toFixed(1)}`).join(" ");
  return `M ${at(points[0])} ${y(points[0][name]).toFixed(1)} ${steps} H ${x(end).toFixed(1)}`;
}

/** @param {Point | undefined} point */
function renderLegend(point) {
  for (const entry of $("legend").children) setText(entry.lastElementChild, String(point?.[entry.dataset.series] ?? "–"));
}

/** @param {Point[]} points */
function label(points) {
  const last = points.at(-1);
  if (!last) return "No figures yet";
  const most = Math.max(...points.map((each) => each.in_interview));
  return `Now ${last.online} online, ${last.in_interview} in interview, ${last.waiting} waiting, limit ${last.limit}; at most ${most} in interview since ${hourAndMinute(points[0].at)}`;
}

/** @param {Point[]} points @param {number} end */
function renderFigures(points, end) {
  const rows = [];
  for (let at = end; points.length && at >= points[0].at; at -= FIGURES_STEP_MS) {
    const point = pointAt(points, at);
    const row = document.createElement("tr");
    const time = Object.assign(document.createElement("th"), { scope: "row", textContent: hourAndMinute(at) });
    const cells = [point.online, point.in_interview, point.waiting, point.limit].map((value) =>
      Object.assign(document.createElement("td"), { textContent: String(value ?? "–") }),
    );
    row.append(time, ...cells);
    rows.push(row);
  }
  $("chart-rows").replaceChildren(...rows);
}

/** @param {string} name @param {Record<string, string>} attributes */
function svgElement(name, attributes) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** @param {number} x @param {number} y @param {string} anchor @param {string} text */
function svgText(x, y, anchor, text) {
  const element = svgElement("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor });
  element.textContent = text;
  return element;
}
