// Reruns the app when the page hears what the last run did not know: let in, thrown out, over, or open in another tab.
const SETTLED_MS = 300; // a run that has just claimed tells us so itself
const FOLLOWED_MS = 3000; // at most so often does the place in line alone rerun an app that shows it as plain text
const STANDINGS = { granted: "granted", waiting: "line", offered: "line" };
const acted = new Map(); // session -> `at` of the newest message that caused a rerun: each causes one at most

const roomIsShown = () => document.querySelector("[data-presence-room]") !== null;

function sayingOf({ name, detail, at }) {
  if (name === "ended") return { standing: detail.reason === "taken_over" ? "elsewhere" : "ended", reason: detail.reason, at };
  return { standing: STANDINGS[detail.state] ?? "out", reason: detail.reason ?? null, position: detail.position ?? null, at };
}

/** In how many ms to rerun, when the app has `known` this and the page has `said` that; Infinity: not at all. */
function patience(known, said) {
  const [was, is] = [known.standing, said.standing];
  if (was === is) return is === "line" && known.position !== said.position && !roomIsShown() ? FOLLOWED_MS : Infinity;
  if (is === "elsewhere" || is === "ended" || was === "elsewhere") return 0;
  if (was === null || (was === "out" && is === "line")) return Infinity; // the app does not ask
  return was === "line" && is === "granted" ? 0 : SETTLED_MS;
}

function show(element, isElsewhere) {
  element.querySelector("section").hidden = !isElsewhere;
  // Takes no room in the app while there is nothing to say.
  const cell = element.host.closest('[data-testid="stElementContainer"]');
  if (cell) Object.assign(cell.style, { position: isElsewhere ? "" : "absolute" });
}

function word(element, texts) {
  element.querySelector("p").textContent = texts.elsewhere;
  const button = element.querySelector("button");
  button.textContent = texts.continue_here;
  button.onclick = () => ask("resume");
}

export default function watch({ data: { session, known, texts }, parentElement, setTriggerValue }) {
  let said = null;
  let due = Infinity;
  let timer;

  function rerun() {
    due = Infinity;
    acted.set(session, said.at);
    setTriggerValue("changed", said);
  }

  // An absent person is told upon return: a rerun may claim, and only who is here should.
  function consider() {
    const isNews = said && said.at > (acted.get(session) ?? 0) && !document.hidden;
    const wait = isNews ? patience(known, said) : Infinity;
    const next = wait === Infinity ? Infinity : Math.min(due, performance.now() + wait);
    if (next === due) return;
    clearTimeout(timer);
    due = next;
    if (due < Infinity) timer = setTimeout(rerun, wait);
  }

  function hear(message) {
    if ((message.name !== "interview" && message.name !== "ended") || message.at < said?.at) return;
    said = sayingOf(message);
    show(parentElement, said.standing === "elsewhere");
    consider();
  }

  word(parentElement, texts);
  show(parentElement, known.standing === "elsewhere");
  const life = listen(parentElement, session, hear);
  document.addEventListener("visibilitychange", consider, { signal: life.signal });
  life.signal.addEventListener("abort", () => clearTimeout(timer));
  return () => life.abort();
}
