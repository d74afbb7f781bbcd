// The room that everybody sees: the places, the line, and who is here.
export const LANGUAGES = { en: "English", de: "Deutsch", nl: "Nederlands", tr: "Türkçe", sq: "Shqip", hi: "हिन्दी" };

const REFRESH_MS = 2000;
const STATES = { granted: "in interview", waiting: "waiting", offered: "offered", none: "here" };
const MOST_PLACES = 50;

const $ = (id) => document.getElementById(id);

export function paintAvatar(element, name) {
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  element.style.setProperty("--hue", String(hue));
  element.textContent = [...name][0]?.toUpperCase() ?? "?";
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

function avatarOf(person) {
  const avatar = make("span", "avatar");
  avatar.ariaHidden = "true";
  paintAvatar(avatar, person.name);
  return avatar;
}

function seatOf(holder, mine, known) {
  if (!holder) return make("li", "seat free", make("span", "avatar"), make("span", "name", "free"));
  const seat = make("li", "seat", avatarOf(holder), make("span", "name", holder.name));
  seat.classList.toggle("away", !holder.online);
  seat.classList.toggle("offered", holder.state === "offered");
  seat.classList.toggle("mine", holder.session_id === mine);
  seat.classList.toggle("arrived", !known.has(holder.session_id));
  if (holder.state === "offered") seat.title = "Offered: the place is kept until it is accepted, or the offer runs out";
  else if (!holder.online) seat.title = "Connection lost: the place is kept for a moment";
  return seat;
}

function waiterOf(person, mine) {
  const place = make("li", "waiter", make("span", "number", String(person.position)), avatarOf(person), person.name);
  place.classList.toggle("mine", person.session_id === mine);
  place.classList.toggle("away", !person.online);
  return place;
}

function personOf(person, mine) {
  const name = make("strong", "", person.name);
  if (person.session_id === mine) name.append(make("em", "", "you"));
  const details = [LANGUAGES[person.language_code] ?? person.language_code, person.page].filter(Boolean).join(" · ");
  const state = make("span", "state", person.online ? STATES[person.state] : "away");
  state.dataset.state = person.online ? person.state : "away";
  return make("li", "", avatarOf(person), make("span", "who-name", name, make("small", "", details)), state);
}

export function watchRoom(whoAmI, onNames) {
  let shown = "";
  let known = new Set();
  let seats = [];
  let asking = false;
  let again = false;

  /** Everybody keeps the seat once taken, so that nobody moves when a neighbour leaves. */
  function seated(holders, limit) {
    const byId = new Map(holders.map((holder) => [holder.session_id, holder]));
    seats = seats.map((id) => (byId.has(id) ? id : null));
    for (const id of byId.keys()) {
      if (seats.includes(id)) continue;
      const free = seats.indexOf(null);
      if (free < 0) seats.push(id);
      else seats[free] = id;
    }
    while (seats.length < limit) seats.push(null);
    while (seats.length > limit && seats.includes(null)) seats.splice(seats.lastIndexOf(null), 1);
    return seats.map((id) => byId.get(id));
  }

  function render({ participants, capacity }) {
    const mine = whoAmI();
    const holders = participants.filter(({ state }) => state === "granted" || state === "offered").reverse();
    const line = participants.filter(({ state }) => state === "waiting").sort((a, b) => a.position - b.position);
    const here = participants.filter(({ online }) => online);
    $("taken").textContent = capacity.active;
    $("total").textContent = $("limit").textContent = capacity.limit;
    $("fewer").disabled = capacity.limit <= 0;
    $("more").disabled = capacity.limit >= MOST_PLACES;
    $("seats").replaceChildren(...seated(holders, capacity.limit).map((holder) => seatOf(holder, mine, known)));
    $("line").replaceChildren(...line.map((person) => waiterOf(person, mine)));
    $("no-line").hidden = line.length > 0;
    $("here").textContent = here.length;
    $("people").replaceChildren(...participants.map((person) => personOf(person, mine)));
    $("nobody").hidden = participants.length > 0;
    known = new Set(holders.map(({ session_id }) => session_id));
  }

  async function refresh() {
    again = asking;
    if (asking) return;
    asking = true;
    try {
      const response = await fetch("/demo/state");
      const room = await response.json();
      const { as_of: _, ...capacity } = room.capacity;
      const now = JSON.stringify([room.participants, capacity, whoAmI()]);
      if (now !== shown) render(room);
      shown = now;
      onNames(room.participants.map(({ name }) => name));
    } catch {
      // The server is away; the next look will tell.
    }
    asking = false;
    if (again) refresh();
  }

  async function post(path, body) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    const answer = response.status === 204 ? null : await response.json();
    if (!response.ok) throw new Error(answer.detail);
    return answer;
  }

  async function changeLimit(by) {
    const limit = Number($("limit").textContent) + by;
    await post("/demo/limit", { limit }).catch(() => {});
    refresh();
  }

  $("fewer").addEventListener("click", () => changeLimit(-1));
  $("more").addEventListener("click", () => changeLimit(1));
  setInterval(() => document.hidden || refresh(), REFRESH_MS);
  document.addEventListener("visibilitychange", refresh);
  refresh();
  return { refresh, post };
}
