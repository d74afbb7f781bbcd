// Asks before a session is completed or kicked, does it, and says what went wrong.
import { call, Problem } from "./api.js";
import { languageName } from "./format.js";
import { $, setText } from "./rows.js";
import { stateOf } from "./store.js";

/** @typedef {import("./types.d.ts").Session} Session */
/** @typedef {import("./store.js").Store} Store */

const ACTIONS = {
  complete: {
    title: "Complete this session?",
    text: "The session ends as completed. Its place goes to the next in line at once.",
    yes: "Complete",
    done: (/** @type {string} */ who) => `${who} is completed.`,
    method: "POST",
    path: "/complete",
    body: {},
  },
  kick: {
    title: "Kick this session?",
    text: "The participant is thrown out at once and told so. The session ends as abandoned; its place goes to the next in line.",
    yes: "Kick",
    done: (/** @type {string} */ who) => `${who} is kicked.`,
    method: "DELETE",
    path: "",
    body: undefined,
  },
};
const STATES = {
  granted: "in the interview",
  offered: "offered a place",
  waiting: "waiting in line",
  here: "here",
  away: "away",
  completed: "completed",
  abandoned: "abandoned",
};

/** @param {Store} store @param {{ pool: () => string, say: (sentence: string) => void }} page */
export function makeConfirm(store, { pool, say }) {
  const dialog = /** @type {HTMLDialogElement} */ ($("confirm"));
  /** @type {keyof typeof ACTIONS} */
  let action = "complete";
  let sessionId = "";
  let who = "";

  /** @param {keyof typeof ACTIONS} wanted @param {string} id @param {HTMLElement} from */
  function ask(wanted, id, from) {
    const session = store.sessions.get(id);
    [action, sessionId, who] = [wanted, id, session?.user_id ?? from.closest("li, tr").querySelector(".user").textContent];
    setText($("confirm-title"), ACTIONS[action].title);
    setText($("confirm-text"), ACTIONS[action].text);
    setText($("confirm-yes"), ACTIONS[action].yes);
    $("confirm-yes").className = action === "kick" ? "danger solid" : "primary";
    $("confirm-who").replaceChildren(...facts(session).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    problem("");
    dialog.showModal();
  }

  /** @param {Session | undefined} session @returns {[string, string][]} */
  function facts(session) {
    /** @type {[string, string | null | undefined][]} */
    const all = [
      ["Participant", who],
      ["Session", sessionId],
      ["State", session && STATES[stateOf(session)]],
      ["Page", session?.current_page],
      ["Language", session && languageName(session.language_code)],
    ];
    return /** @type {[string, string][]} */ (all.filter(([, value]) => value));
  }

  /** @param {string} sentence */
  function problem(sentence) {
    $("confirm-problem").hidden = !sentence;
    setText($("confirm-problem"), sentence);
  }

  async function act() {
    const { method, path, body, done } = ACTIONS[action];
    $("confirm-yes").disabled = true;
    problem("");
    try {
      await call(method, `/v1/sessions/${encodeURIComponent(sessionId)}${path}`, { params: { pool: pool() }, body });
      dialog.close();
      say(done(who));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problem(error.message);
    } finally {
      $("confirm-yes").disabled = false;
    }
  }

  $("confirm-yes").addEventListener("click", act);
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest?.("button[data-action]");
    if (!(button instanceof HTMLElement)) return;
    const owner = /** @type {HTMLElement} */ (button.closest("[data-session]"));
    ask(/** @type {keyof typeof ACTIONS} */ (button.dataset.action), owner.dataset.session, button);
  });
}

/** @param {string} tag @param {string} text */
function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
