// This tab's participant: joining, the standing in the interview, and what the tab hears.
import { connect } from "/client.js";
import { LANGUAGES, paintAvatar, watchRoom } from "./room.js";

const NAMES = [
  "Anna", "Bram", "Cem", "Drita", "Emma", "Farid", "Greta", "Hana", "Ilir", "Jonas", "Kavya", "Lotte",
  "Mira", "Noor", "Ole", "Priya", "Quinn", "Ravi", "Sanne", "Teuta", "Umut", "Vera", "Willem", "Yara",
];
const PAGES = ["home", "learning", "survey"];
const LOG_LENGTH = 40;
const STORED = "demo";
const guest = new URLSearchParams(location.search);

const WHY = {
  paused: "nobody is let in at the moment",
  closed: "nobody is let in at the moment",
  limit_lowered: "there are fewer places now",
  returned_ahead: "somebody came back to a place in front",
  interviews_run_longer: "the interviews take longer than usual",
};

const $ = (id) => document.getElementById(id);
let me = JSON.parse(sessionStorage.getItem(STORED) ?? "null");
let presence;
let interview = { state: "none" };
let heardAt = 0;

const room = watchRoom(() => me?.session_id, suggestName);

function headlineOf({ state, position, reason }) {
  if (state === "granted") return "You are in the interview";
  if (state === "waiting") return position === 1 ? "You are next in line" : `Number ${position} in line`;
  if (state === "offered") return "A place is yours";
  if (state === "denied") return "Not this time";
  if (reason === "taken_over" && state === "ended") return "You are in another tab now";
  if (state === "ended") return reason === "completed" ? "Completed. Thank you!" : `Over (${String(reason).replaceAll("_", " ")})`;
  return "You are here";
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function minutes(seconds) {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

/** What is known of the time, by now: the standing was heard a while ago. */
function timesOf({ state, eta_s, eta_max_s, eta_reason, offer_expires_in_s, ends_in_s }) {
  const left = (seconds) => clock(Math.max(0, seconds - (Date.now() - heardAt) / 1000));
  if (state === "offered") return `Kept for you for ${left(offer_expires_in_s)}`;
  if (state === "granted" && ends_in_s != null) return `Ends in ${left(ends_in_s)}`;
  if (state !== "waiting") return "";
  const wait = eta_s == null ? "" : `Your turn in about ${minutes(eta_s)}, at most ${minutes(eta_max_s)}`;
  return [wait, WHY[eta_reason]].filter(Boolean).join(": ");
}

function showTimes() {
  const times = timesOf(interview);
  $("times").hidden = !times;
  if ($("times").textContent !== times) $("times").textContent = times;
  if (me) document.title = (interview.state === "offered" ? `(!) ${times} · ` : "") + `${me.name} · interview-presence`;
}

function show() {
  const { state, reason } = interview;
  $("join").hidden = !!me;
  $("standing").hidden = !me;
  if (!me) return;
  $("standing").dataset.state = state;
  $("my-name").textContent = me.name;
  $("my-language").textContent = LANGUAGES[me.language];
  paintAvatar($("my-avatar"), me.name);
  $("headline").textContent = headlineOf(interview);
  $("sentence").textContent = interview.message ?? "";
  $("sentence").lang = me.language;
  $("takeover").hidden = reason !== "elsewhere";
  $("enter").hidden = !["none", "denied"].includes(state) || reason === "elsewhere";
  $("accept").hidden = state !== "offered";
  $("complete").hidden = state !== "granted";
  $("leave").hidden = !["granted", "waiting", "offered"].includes(state);
  $("leave").textContent = state === "granted" ? "Leave the interview" : "Leave the line";
  $("resume").hidden = state !== "ended" || reason !== "taken_over";
  $("again").hidden = state !== "ended" || reason === "taken_over";
  $("pages").hidden = state === "ended";
  $("twice").hidden = state === "ended";
  $("same-person").href = "/demo?" + new URLSearchParams({ as: me.user_id, name: me.name, language: me.language });
  showTimes();
}

function showConnection() {
  const texts = { connecting: "Connecting…", online: "Online", fallback: "Online over HTTP", offline: "Reconnecting…", ended: "Ended" };
  const state = presence?.state ?? "none";
  $("connection").dataset.state = state;
  $("connection").textContent = texts[state] ?? "Not joined";
}

function note(name, detail) {
  const entry = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  entry.append(time, ` ${name}`, detail ? `: ${detail}` : "");
  $("log").prepend(entry);
  while ($("log").children.length > LOG_LENGTH) $("log").lastChild.remove();
}

function start() {
  const { token, page } = me;
  presence = connect({ url: location.origin, token, page });
  presence.on("interview", (standing) => {
    interview = standing;
    heardAt = Date.now();
    note("interview", [standing.state, standing.position, standing.reason].filter(Boolean).join(" "));
    show();
    room.refresh();
  });
  presence.on("capacity", room.refresh);
  presence.on("ended", ({ reason }) => {
    interview = { state: "ended", reason, message: interview.message };
    sessionStorage.removeItem(STORED);
    note("ended", reason);
    show();
    showConnection();
    room.refresh();
  });
  presence.on("error", ({ code, message }) => note("error", `${code}: ${message}`));
  for (const name of ["online", "fallback", "offline"]) {
    presence.on(name, () => {
      note(name);
      showConnection();
    });
  }
  for (const input of document.querySelectorAll("[name=page]")) input.checked = input.value === page;
  showConnection();
  show();
}

function suggestName(taken) {
  if (me || $("name").value || document.activeElement === $("name")) return;
  const free = NAMES.filter((name) => !taken.includes(name));
  $("name").value = free[Math.floor(Math.random() * free.length)] ?? "";
}

async function join() {
  const [name, language] = [$("name").value.trim(), $("language").value];
  const user_id = guest.get("as") ?? undefined;
  const joined = await room.post("/demo/sessions", { name, language_code: language, user_id });
  me = { ...joined, name, language, page: PAGES[0] };
  interview = { state: "none" };
  sessionStorage.setItem(STORED, JSON.stringify(me));
  start();
}

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  try {
    await join();
    $("problem").hidden = true;
    $("enter").focus();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  button.disabled = false;
});
$("accept").addEventListener("click", () => presence.accept());
$("takeover").addEventListener("click", () => presence.enter({ takeover: true }));
$("enter").addEventListener("click", () => presence.enter());
$("leave").addEventListener("click", () => presence.leave());
$("complete").addEventListener("click", () => presence.complete());
$("resume").addEventListener("click", () => {
  sessionStorage.setItem(STORED, JSON.stringify(me));
  presence.resume();
  showConnection();
});
$("again").addEventListener("click", () => {
  me = presence = null;
  $("name").value = "";
  show();
  showConnection();
  room.refresh();
});
$("pages").addEventListener("change", ({ target }) => {
  me.page = target.value;
  sessionStorage.setItem(STORED, JSON.stringify(me));
  presence.setPage(target.value);
});

setInterval(showTimes, 1000);
if (guest.has("as") && !me) {
  $("name").value = guest.get("name");
  $("language").value = guest.get("language");
}
if (me) start();
else show();
